package quorate_test

import (
	"go/ast"
	"os"
	"path"
	"regexp"
	"strings"
	"testing"
)

var pathOfFunctions = regexp.MustCompile(`(?m)^Functions: (.+(?:\n.+)*)$`)

var functionName = regexp.MustCompile("`([a-z]+(?:\\.[A-Za-z]+){1,2})`")

// TestJourneysNameFunctionsThatExist: each journey of docs/architecture.md names the
// functions of its path as pkg.Func or pkg.Type.Method, in the order of the calls.
func TestJourneysNameFunctionsThatExist(t *testing.T) {
	raw, err := os.ReadFile("docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(raw), "\n## Journeys\n")
	text, _, _ = strings.Cut(text, "\n## ")
	have := functions(t)
	paths := pathOfFunctions.FindAllStringSubmatch(text, -1)
	if len(paths) < 6 {
		t.Errorf("%d journeys name their functions, not 6", len(paths))
	}
	for _, p := range paths {
		names := functionName.FindAllStringSubmatch(p[1], -1)
		if len(names) < 5 {
			t.Errorf("%.60s… names %d functions only", p[1], len(names))
		}
		for _, n := range names {
			if !have[n[1]] {
				t.Errorf("docs/architecture.md names %s, which does not exist", n[1])
			}
		}
	}
}

// functions are the functions and methods of production code, also the methods that an
// interface asks for.
func functions(t *testing.T) map[string]bool {
	have := map[string]bool{}
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		pkg := path.Base(s.dir)
		for _, d := range s.file.Decls {
			f, ok := d.(*ast.FuncDecl)
			switch {
			case ok && f.Recv == nil:
				have[pkg+"."+f.Name.Name] = true
			case ok:
				have[pkg+"."+receiver(f.Recv.List[0].Type)+"."+f.Name.Name] = true
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			if i, ok := spec.Type.(*ast.InterfaceType); ok {
				for _, m := range i.Methods.List {
					for _, name := range m.Names {
						have[pkg+"."+spec.Name.Name+"."+name.Name] = true
					}
				}
			}
			return false
		})
	}
	return have
}
