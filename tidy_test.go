package quorate_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// allowed says which of our packages each package may import, and why no more.
var allowed = map[string]struct {
	imports []string
	why     string
}{
	"api/client":         {[]string{"api/neon", "internal/jsonhttp"}, "a protocol, for others too"},
	"api/neon":           {nil, "a leaf: Neon's words and nothing of ours"},
	"api/auth":           {[]string{"api/neon"}, "tokens know no route"},
	"internal/wait":      {nil, "ways to wait"},
	"internal/freeport":  {nil, "ports"},
	"internal/logbuffer": {nil, "a log in memory, for tests"},
	"internal/tracelog":  {nil, "a log format"},
	"internal/jsonhttp":  {nil, "one exchange of any protocol"},
	"fsm":                {[]string{"api/neon"}, "pure state"},
	"fsm/fsmtest":        {[]string{"fsm", "internal/wait", "api/neon"}, "a log for tests"},
	"scheduler":          {[]string{"fsm", "api/neon"}, "pure decisions"},
	"api/internal/profile": {
		[]string{"api/neon"}, "knows no request",
	},
	"api/internal/bodypool": {
		[]string{"internal/wait", "api/neon"}, "knows no route and no answer",
	},
	"api/internal/forward": {
		[]string{"internal/wait", "api/neon"}, "knows no route and no resource",
	},
	"internal/atomicfile": {
		nil, "one way to write a file",
	},
	"cluster": {
		[]string{
			"cluster/internal/datadir", "cluster/internal/repeats", "cluster/internal/store",
			"internal/wait",
		},
		"consensus knows no word of Neon",
	},
	"cluster/internal/datadir": {
		[]string{"internal/atomicfile"}, "identity, without Raft",
	},
	"cluster/internal/repeats": {nil, "lines of a log"},
	"cluster/internal/store": {
		[]string{"cluster/internal/datadir"}, "one disk",
	},
	"cluster/clustertest": {
		[]string{"cluster/internal/store", "internal/wait"}, "what fails in tests",
	},
	"reconciler": {
		[]string{
			"fsm", "scheduler", "reconciler/plan", "reconciler/observed", "reconciler/queue",
			"reconciler/outbox", "internal/decide", "internal/failpoint", "internal/wait", "api/neon",
		},
		"effects only through interfaces it declares",
	},
	"reconciler/observed": {
		[]string{"fsm", "reconciler/plan", "api/neon"}, "what was seen, and nothing that looks",
	},
	"reconciler/queue": {
		[]string{"internal/wait", "api/neon"}, "does not know what is worked on",
	},
	"reconciler/outbox": {
		[]string{"fsm", "internal/wait", "api/neon"}, "effects only through interfaces it declares",
	},
	"reconciler/plan": {[]string{"fsm", "api/neon"}, "pure decisions about one shard"},
	"internal/pageserver": {
		[]string{"fsm", "api/neon", "internal/jsonhttp"}, "a protocol, with the nodes of the state",
	},
	"internal/computehook": {
		[]string{"api/neon", "internal/jsonhttp", "internal/wait"}, "a protocol",
	},
	"internal/failpoint": {nil, "places that have names"},
	"internal/metrics":   {[]string{"fsm", "api/neon"}, "counts, and no package reads it"},
	"internal/cron":      {nil, "a notation"},
	"internal/buildinfo": {nil, "what the linker says"},
	"internal/secretfiles": {
		nil, "files, whatever is in them",
	},
	"internal/localhook": {[]string{"api/neon", "internal/jsonhttp"}, "a protocol"},
	"internal/safekeeper": {
		[]string{"fsm", "api/neon", "internal/jsonhttp"},
		"a protocol, with the safekeepers of the state",
	},
	"internal/safekeeping": {
		[]string{"fsm", "internal/decide", "internal/wait", "api/neon"},
		"effects only through interfaces it declares",
	},
	"testcluster/simsafekeeper": {
		[]string{"api/neon"}, "must not share a line with what it checks",
	},
	"internal/decide": {
		[]string{"fsm", "api/neon"}, "how any decision gets into the log",
	},
	"internal/split": {
		[]string{
			"fsm", "scheduler", "internal/decide", "internal/duty", "internal/failpoint",
			"internal/wait", "api/neon",
		}, "effects only through interfaces it declares",
	},
	"internal/duty": {nil, "runs what it knows nothing of"},
	"internal/fanout": {
		[]string{"fsm", "internal/decide", "internal/split", "internal/wait", "api/neon"},
		"effects only through interfaces it declares",
	},
	"internal/membership": {
		[]string{
			"fsm", "internal/decide", "internal/duty", "internal/failpoint", "internal/safekeeping",
			"internal/wait", "api/neon",
		}, "effects only through interfaces it declares",
	},
	"internal/imports": {
		[]string{
			"fsm", "internal/decide", "internal/duty", "internal/failpoint", "internal/fanout",
			"internal/membership", "internal/wait", "api/neon",
		}, "effects only through interfaces it declares",
	},
	"internal/deletion": {
		[]string{
			"fsm", "scheduler", "internal/decide", "internal/duty", "internal/fanout",
			"internal/split", "internal/wait", "api/neon",
		}, "effects only through interfaces it declares",
	},
	"internal/timetravel": {
		[]string{
			"fsm", "internal/decide", "internal/duty", "internal/fanout", "internal/wait", "api/neon",
		}, "effects only through interfaces it declares",
	},
	"internal/controller": {
		[]string{
			"fsm", "scheduler", "internal/decide", "internal/duty", "internal/failpoint",
			"internal/fanout", "internal/imports", "internal/membership", "internal/split",
			"api/neon",
		}, "decides and proposes",
	},
	"api": {
		[]string{
			"api/auth", "api/internal/bodypool", "api/internal/forward", "api/internal/profile",
			"fsm",
			"internal/controller", "internal/decide", "internal/deletion", "internal/membership",
			"internal/metrics", "internal/split", "internal/timetravel", "api/neon",
		},
		"the outside",
	},
	"internal/servicemanager": {
		[]string{"internal/wait"}, "tells how a process is, whatever it does",
	},
	"internal/serve": {[]string{"internal/wait"}, "sockets"},
	"internal/clusteradmin": {
		[]string{"cluster", "api/neon", "internal/decide"}, "commands, over HTTP or the control socket",
	},
	"internal/controlsocket": {
		[]string{"cluster", "api/neon", "internal/jsonhttp", "internal/serve"},
		"commands on the same machine",
	},
	"internal/snapshots": {
		[]string{"internal/atomicfile", "internal/wait"}, "a directory, whatever is saved",
	},
	"internal/featureflags": {
		[]string{"fsm", "api/neon", "internal/jsonhttp", "internal/pageserver"}, "passes flags on",
	},
	"internal/leadership": {
		[]string{"api", "cluster", "fsm", "api/neon", "internal/wait"},
		"the cluster as the API sees it",
	},
	"internal/instance": {
		[]string{
			"cluster", "api/neon", "internal/atomicfile", "internal/leadership", "internal/serve",
			"internal/wait",
		},
		"takes turns, whatever an instance is",
	},
	"internal/app": {[]string{
		"api", "api/auth", "cluster", "fsm", "reconciler", "reconciler/outbox", "internal/controller",
		"internal/decide", "internal/deletion", "internal/duty", "internal/imports",
		"internal/membership", "internal/split", "internal/timetravel", "internal/pageserver",
		"internal/computehook",
		"internal/failpoint", "internal/localhook", "internal/safekeeper", "internal/safekeeping",
		"internal/metrics", "api/neon",
		"internal/buildinfo", "internal/clusteradmin",
		"internal/controlsocket", "internal/featureflags", "internal/instance",
		"internal/leadership", "internal/secretfiles", "internal/serve",
		"internal/servicemanager", "internal/snapshots",
		"internal/wait",
	}, "wires all parts"},
	"testcluster/simpageserver": {
		[]string{"testcluster/simpageserver/archival", "internal/wait", "api/neon"},
		"must not share a line with what it checks",
	},

	"testcluster/simpageserver/archival": {nil, "a machine whose interleavings are exhausted"},
	"testcluster": {[]string{
		"api/auth", "api/client", "api/neon", "cluster", "fsm", "internal/app", "internal/failpoint",
		"internal/freeport", "internal/tracelog", "internal/wait", "reconciler",
		"testcluster/simpageserver", "testcluster/simsafekeeper", "testcluster/spoil",
		"cluster/clustertest", "internal/serve",
	}, "builds whole clusters"},
	"testcluster/spoil": {[]string{"api/neon", "cluster", "fsm"}, "alters states as the log may"},
	"internal/neondb":   {nil, "the database of another controller, as it is"},
	"internal/neonstate": {
		[]string{"api/neon", "fsm", "internal/neondb"}, "rows and records, and no database",
	},
	"internal/handover": {
		[]string{"api/neon", "fsm", "internal/neondb", "internal/neonstate", "internal/wait"},
		"effects only through interfaces it declares",
	},
	"testcluster/realpostgres": {[]string{"internal/freeport"}, "a database for tests, whatever is in it"},
	"testcluster/neonrows":     {[]string{"internal/neondb"}, "databases for tests"},
	"internal/storagecontroller": {[]string{
		"api/auth", "cluster", "reconciler", "internal/app", "internal/cron", "internal/failpoint",
		"api/neon", "internal/tracelog", "internal/atomicfile", "internal/buildinfo",
		"internal/controlsocket", "internal/featureflags", "internal/handover",
		"internal/instance", "internal/jsonhttp", "internal/neondb", "internal/neonstate",
		"internal/pageserver", "internal/secretfiles", "internal/serve",
		"internal/servicemanager",
	}, "flags and commands"},
	"cmd/storage_controller": {[]string{"internal/storagecontroller"}, "the process"},
	"internal/storconcli": {
		[]string{"api/neon", "internal/jsonhttp"},
		"speaks to controllers by HTTP alone, also to others than ours",
	},
	"cmd/storcon_cli": {[]string{"internal/buildinfo", "internal/storconcli"}, "the terminal"},
	"cmd/quorate": {
		[]string{
			"internal/atomicfile", "internal/report", "internal/results", "internal/resultsdb",
			"testcluster/demo", "testcluster/bench",
		}, "flags",
	},

	"testcluster/bench": {[]string{
		"cluster", "fsm", "internal/controlsocket", "internal/results", "internal/wait",
		"testcluster", "api/client", "api/neon", "testcluster/simpageserver",
	}, "measures controllers from outside, and the log and the state alone"},
	"testcluster/testcontroller": {
		[]string{"cluster", "cluster/clustertest", "internal/storagecontroller", "testcluster/spoil"},
		"the controller as a process, with what only tests need",
	},
	"testcluster/demo": {
		[]string{
			"internal/freeport", "internal/jsonhttp", "internal/wait", "testcluster",
			"testcluster/simpageserver", "api/neon",
		}, "a cluster to watch",
	},

	"internal/contract":       {nil, "data"},
	"internal/contract/count": {[]string{"internal/contract"}, "a count"},
	"internal/release":        {nil, "a module of its own, about files"},
	"internal/release/build":  {[]string{"internal/release"}, "flags"},
	"internal/covercheck":     {nil, "reads what go test printed"},
	"internal/report":         {[]string{"internal/results"}, "draws what was measured"},
	"internal/resultsdb":      {[]string{"internal/results"}, "keeps what was measured"},
	"internal/results":        {[]string{"internal/wait"}, "what was measured, whatever it is"},
}

// pure packages must not reach for the clock, for chance or for the outside.
var pure = []string{"fsm", "scheduler", "reconciler/plan"}

var impure = []string{"time", "math/rand", "math/rand/v2", "crypto/rand", "net", "net/http", "os"}

const (
	maxFileLines = 600
	maxColumns   = 100 // a tab counts as four
	maxFuncLines = 70
)

type source struct {
	dir, path string
	test      bool
	fset      *token.FileSet
	file      *ast.File
}

func sources(t *testing.T) (all []source) {
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && p != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, p, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		all = append(all, source{
			dir: filepath.ToSlash(filepath.Dir(p)), path: p, test: strings.HasSuffix(p, "_test.go"),
			fset: fset, file: f,
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestPackagesImportOnlyWhatTheyMay(t *testing.T) {
	unused := map[string][]string{} // rows of the table, by package
	for _, s := range sources(t) {
		rule, known := allowed[s.dir]
		if s.test || s.dir == "." {
			continue
		}
		if !known {
			t.Errorf("%s: package %s has no row in the table of imports", s.path, s.dir)
			continue
		}
		if unused[s.dir] == nil {
			unused[s.dir] = slices.Clone(rule.imports)
		}
		for _, imp := range s.file.Imports {
			name := strings.Trim(imp.Path.Value, `"`)
			ours, isOurs := strings.CutPrefix(name, "quorate/")
			if isOurs && !slices.Contains(rule.imports, ours) {
				t.Errorf("%s imports %s; %s: %s", s.path, ours, s.dir, rule.why)
			}
			unused[s.dir] = slices.DeleteFunc(unused[s.dir],
				func(row string) bool { return row == ours })
			if slices.Contains(pure, s.dir) && slices.Contains(impure, name) {
				t.Errorf("%s imports %s, but %s is pure", s.path, name, s.dir)
			}
		}
	}
	for dir := range allowed {
		if left, exists := unused[dir]; !exists {
			t.Errorf("the table of imports has a row for %s, which has no code", dir)
		} else if len(left) > 0 {
			t.Errorf("%s may import %v and does not: shorten its row", dir, left)
		}
	}
	for _, dir := range pure {
		if _, exists := unused[dir]; !exists {
			t.Errorf("the list of pure packages has %s, which has no code", dir)
		}
	}
}

func TestEveryPackageHasOneDoc(t *testing.T) {
	docs := map[string]int{}
	for _, s := range sources(t) {
		if s.test || s.dir == "." {
			continue
		}
		docs[s.dir] += 0
		if s.file.Doc != nil {
			docs[s.dir]++
		}
	}
	for dir, n := range docs {
		if n != 1 {
			t.Errorf("package %s has %d package comments, not one", dir, n)
		}
	}
}

func TestFilesAndFunctionsStaySmall(t *testing.T) {
	for _, s := range sources(t) {
		lines := s.fset.Position(s.file.FileEnd).Line
		if lines > maxFileLines {
			t.Errorf("%s has %d lines, more than %d", s.path, lines, maxFileLines)
		}
		for _, d := range s.file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || s.test {
				continue
			}
			if n := s.fset.Position(f.End()).Line - s.fset.Position(f.Pos()).Line +
				1; n > maxFuncLines {
				t.Errorf("%s: %s has %d lines, more than %d", s.path, f.Name.Name, n, maxFuncLines)
			}
		}
	}
}

// TestLinesStayShort: a line that is longer has a text in it that is better found
// whole by grep than broken.
func TestLinesStayShort(t *testing.T) {
	for _, s := range sources(t) {
		raw, err := os.ReadFile(s.path)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for line := range strings.Lines(string(raw)) {
			n++
			line = strings.TrimRight(line, "\n")
			columns := utf8.RuneCountInString(line) + 3*strings.Count(line, "\t")
			if columns > maxColumns && !strings.ContainsAny(line, "\"`") {
				t.Errorf("%s:%d has %d columns, more than %d", s.path, n, columns, maxColumns)
			}
		}
	}
}

// A test that sleeps is slow or flaky; inside a synctest bubble sleeping is
// virtual and exact, so files that use synctest may.
func TestTestsDoNotSleep(t *testing.T) {
	for _, s := range sources(t) {
		if !s.test || imports(s.file, "testing/synctest") {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if c, ok := n.(*ast.CallExpr); ok {
				if sel, ok := c.Fun.(*ast.SelectorExpr); ok && fmt.Sprint(sel.X) == "time" &&
					sel.Sel.Name == "Sleep" {
					t.Errorf("%s sleeps", s.fset.Position(c.Pos()))
				}
			}
			return true
		})
	}
}

func imports(f *ast.File, name string) bool {
	return slices.ContainsFunc(f.Imports,
		func(i *ast.ImportSpec) bool { return strings.Trim(i.Path.Value, `"`) == name })
}

func TestNoPackageIsACatchAll(t *testing.T) {
	for _, s := range sources(t) {
		if slices.Contains([]string{
			"util", "utils", "common", "helper", "helpers", "types", "structs", "base", "manager",
		}, path.Base(s.dir)) {
			t.Errorf("package %s is named for nothing", s.dir)
		}
	}
}
