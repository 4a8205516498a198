package main

import (
	"slices"
	"strings"
	"testing"
)

func TestPackagesBelowTheMinimumAreListed(t *testing.T) {
	low, err := check(strings.NewReader(`
ok  	quorate/fsm	4.306s	coverage: 92.4% of statements
ok  	quorate/api	4.306s	coverage: 69.9% of statements
	quorate/internal/tracelog		coverage: 0.0% of statements
?   	quorate/internal/wait	[no test files]
ok  	quorate/internal/contract	(cached)	coverage: [no statements]
ok  	quorate/cmd/storage_controller	9.5s	coverage: 12.0% of statements
--- some other line
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"quorate/api: 69.9 % covered by its own tests, less than 70 %",
		"quorate/internal/tracelog: 0.0 % covered by its own tests, less than 70 %",
		"quorate/internal/wait: 0.0 % covered by its own tests, less than 70 %",
	}
	if !slices.Equal(low, want) {
		t.Errorf("listed %q", low)
	}
}

func TestAnOutputWithoutPackagesIsAnError(t *testing.T) {
	if _, err := check(strings.NewReader("make: nothing to be done\n")); err == nil {
		t.Error("accepted")
	}
}
