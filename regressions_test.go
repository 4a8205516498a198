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

// cases is how many rows its table about the life of a cluster has.
const cases = 17

var (
	testName = regexp.MustCompile(
		"`((?:[a-z_]+/)*[a-z_]+)\\.((?:Test|Fuzz)[A-Za-z0-9]+)(?:/([^`]+))?`")
	row   = regexp.MustCompile(`^\| \d+ \|`)
	entry = regexp.MustCompile(`^(?:(\d+)\.|-) \*\*`)
)

// tests are the tests of each package, and the text of its test files.
type tests struct {
	have  map[string]bool
	texts map[string]string
}

func allTests(t *testing.T) tests {
	all := tests{map[string]bool{}, map[string]string{}}
	for _, s := range sources(t) {
		if !s.test {
			continue
		}
		raw, err := os.ReadFile(s.path)
		if err != nil {
			t.Fatal(err)
		}
		all.texts[s.dir] += string(raw)
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil {
				all.have[s.dir+"."+f.Name.Name] = true
			}
		}
	}
	return all
}

// check demands that every test that a text names exists. It returns how many are named.
func (all tests) check(t *testing.T, title, text string) int {
	t.Helper()
	names := testName.FindAllStringSubmatch(text, -1)
	for _, m := range names {
		if !all.have[m[1]+"."+m[2]] {
			t.Errorf("%s: there is no test %s in %s", title, m[2], m[1])
		}
		script, _ := filepath.Glob(filepath.Join(m[1], "testdata", m[3]+".txt"))
		if m[3] != "" && len(script) == 0 &&
			!strings.Contains(all.texts[m[1]], strconv.Quote(m[3])) {
			t.Errorf("%s: %s has no part %q", title, m[2], m[3])
		}
	}
	return len(names)
}

// TestRegressionsAreTested: every defect in docs/regressions.md names a test that
// exists, or says why it cannot occur, so that the document cannot rot.
func TestRegressionsAreTested(t *testing.T) {
	text, err := os.ReadFile("docs/regressions.md")
	if err != nil {
		t.Fatal(err)
	}
	all, number := allTests(t), 0
	for _, e := range entries(string(text)) {
		title, _, _ := strings.Cut(e, ".**")
		if m := entry.FindStringSubmatch(e); m[1] != "" {
			number++
			if m[1] != strconv.Itoa(number) {
				t.Errorf("%s: comes as number %d", title, number)
			}
		}
		if all.check(t, title, e) == 0 && !strings.Contains(e, "Cannot occur:") {
			t.Errorf("%s: no test, and no reason why it cannot occur", title)
		}
	}
	if number != known {
		t.Errorf("%d numbered defects, not %d", number, known)
	}
	rows := 0
	for line := range strings.Lines(string(text)) {
		if !row.MatchString(line) {
			continue
		}
		rows++
		title, cells := row.FindString(line), strings.Split(line, "|")
		if title != "| "+strconv.Itoa(rows)+" |" || len(cells) != 6 {
			t.Errorf("%s comes as row %d, with %d cells", title, rows, len(cells))
		} else if all.check(t, title, cells[3]) == 0 {
			t.Errorf("%s: no test with real processes", title)
		}
		all.check(t, title, cells[len(cells)-2])
	}
	if rows != cases {
		t.Errorf("%d rows about clusters, not %d", rows, cases)
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
