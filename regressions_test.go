package quorate_test

import (
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// known is how many defects the numbered list of docs/regressions.md has.
const known = 45

var (
	testName = regexp.MustCompile(
		"`((?:[a-z_]+/)*[a-z_]+)\\.((?:Test|Fuzz)[A-Za-z0-9]+)(?:/([^`]+))?`")
	entry = regexp.MustCompile(`^(?:(\d+)\.|-) \*\*`)
)

// TestRegressionsAreTested: every defect in docs/regressions.md names a test that
// exists, or says why it cannot occur, so that the document cannot rot.
func TestRegressionsAreTested(t *testing.T) {
	text, err := os.ReadFile("docs/regressions.md")
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	strs := map[string]string{} // the test files of a package
	for _, s := range sources(t) {
		if !s.test {
			continue
		}
		raw, err := os.ReadFile(s.path)
		if err != nil {
			t.Fatal(err)
		}
		strs[s.dir] += string(raw)
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil {
				have[s.dir+"."+f.Name.Name] = true
			}
		}
	}
	number := 0
	for _, e := range entries(string(text)) {
		title, _, _ := strings.Cut(e, ".**")
		if m := entry.FindStringSubmatch(e); m[1] != "" {
			number++
			if m[1] != strconv.Itoa(number) {
				t.Errorf("%s: comes as number %d", title, number)
			}
		}
		names := testName.FindAllStringSubmatch(e, -1)
		if len(names) == 0 && !strings.Contains(e, "Cannot occur:") {
			t.Errorf("%s: no test, and no reason why it cannot occur", title)
		}
		for _, m := range names {
			if !have[m[1]+"."+m[2]] {
				t.Errorf("%s: there is no test %s in %s", title, m[2], m[1])
			}
			script, _ := filepath.Glob(filepath.Join(m[1], "testdata", m[3]+".txt"))
			if m[3] != "" && len(script) == 0 &&
				!strings.Contains(strs[m[1]], strconv.Quote(m[3])) {
				t.Errorf("%s: %s has no part %q", title, m[2], m[3])
			}
		}
	}
	if number != known {
		t.Errorf("%d numbered defects, not %d", number, known)
	}
}

// entries are the items of all lists of a document, each with its further lines.
func entries(text string) (all []string) {
	for line := range strings.Lines(text) {
		switch {
		case entry.MatchString(line):
			all = append(all, line)
		case strings.HasPrefix(line, "   ") && len(all) > 0:
			all[len(all)-1] += line
		}
	}
	return all
}
