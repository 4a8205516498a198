package contract

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Tally compares the ticks in a directory with the rows and prints the counts and
// what is missing. It returns how many rows are not ticked.
func Tally(out io.Writer, dir string) (missing int, err error) {
	ticks, err := readTicks(dir)
	if err != nil {
		return 0, err
	}
	var names []string
	all := 0
	for _, kind := range Kinds() {
		rows, ticked := Rows(kind), 0
		for _, r := range rows {
			if ticks[string(kind)+"\t"+r.Name] {
				ticked++
				continue
			}
			names = append(names, fmt.Sprintf("  %-12s %s", kind, r.Name))
		}
		all += len(rows)
		fmt.Fprintf(out, "%-12s %3d of %3d\n", kind, ticked, len(rows))
	}
	fmt.Fprintf(out, "%-12s %3d of %3d\n", "total", all-len(names), all)
	if len(names) > 0 {
		fmt.Fprintf(out, "\nno test ticks:\n%s\n", strings.Join(names, "\n"))
	}
	return len(names), nil
}

// readTicks is every kind and name that was ticked, with a tab in between.
func readTicks(dir string) (map[string]bool, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		return nil, err
	}
	ticks := map[string]bool{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			kind, rest, _ := strings.Cut(line, "\t")
			name, _, _ := strings.Cut(rest, "\t")
			ticks[kind+"\t"+name] = true
		}
	}
	return ticks, nil
}
