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
`), map[string]string{"quorate/cmd/storage_controller": "a main function"})
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

func TestExemptionsThatAreNotNeededAreListed(t *testing.T) {
	low, err := check(strings.NewReader(`
ok  	quorate	4.306s	coverage: [no statements]
ok  	quorate/api	4.306s	coverage: 70.0% of statements
ok  	quorate/cmd/quorate	4.306s	coverage: 69.9% of statements
`), map[string]string{
		"quorate": "it has no code", "quorate/api": "it is covered", "quorate/gone": "it was moved",
		"quorate/cmd/quorate": "a main function",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"quorate/api: its exemption is not needed: remove it",
		"quorate/gone: its exemption is not needed: remove it",
		"quorate: its exemption is not needed: remove it",
	}
	if !slices.Equal(low, want) {
		t.Errorf("listed %q", low)
	}
}

func TestAnOutputWithoutPackagesIsAnError(t *testing.T) {
	if _, err := check(strings.NewReader("make: nothing to be done\n"), nil); err == nil {
		t.Error("accepted")
	}
}
