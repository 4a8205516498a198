// Command covercheck reads the output of `go test -cover` and fails when a package is
// covered less than it should be by its own tests. A package that is covered only by
// the tests of another one cannot be moved or changed without them.
//
// It runs no tests: `make cover` gives it what `make test` printed.
package main

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const minimum = 70.0 // percent of statements

// exempt are the packages that need no coverage of their own, each with the reason. One
// that is covered, or that does not exist, is an error.
var exempt = map[string]string{
	"quorate/cmd/storcon_cli":            "a main function",
	"quorate/internal/contract/count":    "a main function",
	"quorate/internal/covercheck":        "a main function and a table",
	"quorate/testcluster/testcontroller": "a main function",
	"quorate/testcluster/bench":          "measures; `make bench` checks its figures",
	"quorate/internal/neondb":            "is all Postgres; `make e2e` has one",
	"quorate/testcluster/realpostgres":   "is a Postgres; `make e2e` uses it",
}

var (
	line    = regexp.MustCompile(`^(?:ok  |FAIL|\?   )?\t(quorate\S*)\t`)
	percent = regexp.MustCompile(`coverage: ([0-9.]+)% of statements`)
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: covercheck OUTPUT-OF-GO-TEST")
		os.Exit(2)
	}
	f, err := os.Open(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	defer f.Close()
	low, err := check(f, exempt)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	for _, l := range low {
		fmt.Println(l)
	}
	if len(low) > 0 {
		os.Exit(1)
	}
}

// check lists the packages that are covered less than the minimum, and the exemptions that
// no package needs.
func check(r io.Reader, exempt map[string]string) (low []string, err error) {
	packages, idle := 0, maps.Clone(exempt)
	for s := bufio.NewScanner(r); s.Scan(); {
		m := line.FindStringSubmatch(s.Text())
		if m == nil {
			continue
		}
		packages++
		covered := 0.0
		if p := percent.FindStringSubmatch(s.Text()); p != nil {
			covered, _ = strconv.ParseFloat(p[1], 64)
		} else if strings.Contains(s.Text(), "coverage: [no statements]") {
			continue
		}
		if covered >= minimum {
			continue
		}
		if _, ok := exempt[m[1]]; ok {
			delete(idle, m[1])
		} else {
			low = append(low, fmt.Sprintf("%s: %.1f %% covered by its own tests, less than %.0f %%",
				m[1], covered, minimum))
		}
	}
	if packages == 0 {
		return nil, fmt.Errorf("no package was tested")
	}
	for name := range idle {
		low = append(low, name+": its exemption is not needed: remove it")
	}
	slices.Sort(low)
	return low, nil
}
