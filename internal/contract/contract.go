// Package contract is what the clients of the storage controller rely on, as data:
// a row for every route, scope, class of errors, flag, environment variable, exit
// code, metric, failpoint and subcommand.
//
// The tests named TestContract… of other packages go over the rows, exercise what
// each says, and tick it. `make contract` runs them and compares the ticks with
// the rows: it prints how many of how many are ticked, names those that are not,
// and fails if there are any.
//
// To add a row: write it into the table of its kind, <kind>.tsv, whose header
// explains the columns; cells are separated by one tab. The test of the kind finds
// it there. A route also needs a request and its answer in api/testdata/contract.txt.
package contract

import (
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Kind is a table.
type Kind string

// The tables.
const (
	Route       Kind = "route"
	Scope       Kind = "scope"
	Error       Kind = "error"
	Flag        Kind = "flag"
	Environment Kind = "environment"
	Exit        Kind = "exit"
	Metric      Kind = "metric"
	Failpoint   Kind = "failpoint"
	Subcommand  Kind = "subcommand"
)

// Kinds is all of them.
func Kinds() []Kind {
	return []Kind{Route, Scope, Error, Flag, Environment, Exit, Metric, Failpoint, Subcommand}
}

//go:embed *.tsv
var tables embed.FS

// Row is one promise.
type Row struct {
	Kind Kind
	Name string // unique in its kind

	cells map[string]string
}

// Rows is a table, in its order.
func Rows(kind Kind) []Row {
	text, err := tables.ReadFile(string(kind) + ".tsv")
	if err != nil {
		panic(err)
	}
	rows, err := parse(kind, string(text))
	if err != nil {
		panic(err)
	}
	return rows
}

func parse(kind Kind, text string) (rows []Row, err error) {
	var head []string
	names := map[string]bool{}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "#") {
			continue
		}
		cells := strings.Split(line, "\t")
		if head == nil {
			head = cells
			continue
		}
		if len(cells) != len(head) {
			return nil, fmt.Errorf("%s: %d cells in %q, want %d", kind, len(cells), line, len(head))
		}
		row := Row{Kind: kind, Name: cells[0], cells: map[string]string{}}
		for i, c := range cells {
			row.cells[head[i]] = c
		}
		if row.Name == "" || names[row.Name] {
			return nil, fmt.Errorf("%s: %q has no name of its own", kind, line)
		}
		names[row.Name] = true
		rows = append(rows, row)
	}
	return rows, nil
}

// Cell is what stands in a column; the table must have it.
func (r Row) Cell(column string) string {
	c, ok := r.cells[column]
	if !ok {
		panic(fmt.Sprintf("%s has no column %q", r.Kind, column))
	}
	return c
}

// Words are the words in a column.
func (r Row) Words(column string) []string { return strings.Fields(r.Cell(column)) }

// Has tells whether a word stands in a column.
func (r Row) Has(column, word string) bool { return slices.Contains(r.Words(column), word) }

// TicksVariable names the directory into which ticks are written, one file for
// each process. Without it nothing is written.
const TicksVariable = "CONTRACT_TICKS"

// T is what Tick needs of a testing.T.
type T interface {
	Helper()
	Cleanup(func())
	Failed() bool
	Skipped() bool
	Errorf(format string, args ...any)
	Name() string
}

// Tick says that the test exercises the row. It counts if the test passes.
func (r Row) Tick(t T) {
	t.Helper()
	dir := os.Getenv(TicksVariable)
	if dir == "" {
		return
	}
	t.Cleanup(func() {
		if t.Failed() || t.Skipped() {
			return
		}
		if err := appendLine(filepath.Join(dir, fmt.Sprint(os.Getpid())),
			string(r.Kind)+"\t"+r.Name+"\t"+t.Name()); err != nil {
			t.Errorf("tick %s %s: %v", r.Kind, r.Name, err)
		}
	})
}

// Find is the row of a name; it must exist.
func Find(kind Kind, name string) Row {
	for _, r := range Rows(kind) {
		if r.Name == name {
			return r
		}
	}
	panic(fmt.Sprintf("no %s %q", kind, name))
}

func appendLine(file, line string) error {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(line + "\n"); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}
