package quorate_test

import (
	"go/ast"
	"path"
	"regexp"
	"strings"
	"testing"
)

const (
	maxMethods     = 40 // of a type
	maxMethodFiles = 5  // in which the methods of a type stand
)

// TestTypesStaySmall: a wide type is divided by giving its parts types of their own.
// Moving methods to another file divides nothing.
func TestTypesStaySmall(t *testing.T) {
	methods, files := map[string]int{}, map[string]map[string]bool{}
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		for _, d := range s.file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Recv == nil {
				continue
			}
			name := s.dir + "." + receiver(f.Recv.List[0].Type)
			if files[name] == nil {
				files[name] = map[string]bool{}
			}
			methods[name]++
			files[name][s.path] = true
		}
	}
	for name, n := range methods {
		if n > maxMethods || len(files[name]) > maxMethodFiles {
			t.Errorf("%s has %d methods in %d files, more than %d in %d", name, n,
				len(files[name]), maxMethods, maxMethodFiles)
		}
	}
}

// receiver is the name of the type of a receiver.
func receiver(e ast.Expr) string {
	for {
		switch v := e.(type) {
		case *ast.StarExpr:
			e = v.X
		case *ast.IndexExpr:
			e = v.X
		case *ast.IndexListExpr:
			e = v.X
		case *ast.Ident:
			return v.Name
		default:
			return ""
		}
	}
}

var testDouble = regexp.MustCompile(
	`^(New)?(Mem[A-Z]|Fake|Mock|Faulty|Test[A-Z])|[a-z]For(Tests?|Testing)$`)

// TestProductionPackagesHaveNoTestTypes: what only tests need stands in test files or in
// a package whose name ends in `test`. Otherwise it gets into the binary, and other
// code comes to rely on it.
func TestProductionPackagesHaveNoTestTypes(t *testing.T) {
	for _, s := range sources(t) {
		forTests := strings.HasSuffix(path.Base(s.dir), "test") ||
			strings.HasPrefix(s.dir+"/", "testcluster/")
		if s.test || forTests {
			continue
		}
		if imports(s.file, "testing") {
			t.Errorf("%s imports testing", s.path)
		}
		for name := range exported(s.file) {
			if testDouble.MatchString(name) {
				t.Errorf("%s declares %s: move it to a package for tests", s.path, name)
			}
		}
	}
}

// exported are the names of the exported types and functions of a file.
func exported(f *ast.File) map[string]bool {
	names := map[string]bool{}
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			names[d.Name.Name] = d.Name.IsExported()
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				if ts, ok := spec.(*ast.TypeSpec); ok {
					names[ts.Name.Name] = ts.Name.IsExported()
				}
			}
		}
	}
	for name, ok := range names {
		if !ok {
			delete(names, name)
		}
	}
	return names
}
