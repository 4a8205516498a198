package contract

import (
	"strings"
	"testing"
)

// pretend is a test with an outcome of our choice.
type pretend struct {
	*testing.T
	failed, skipped bool
	done            []func()
}

func (p *pretend) Failed() bool     { return p.failed }
func (p *pretend) Skipped() bool    { return p.skipped }
func (p *pretend) Cleanup(f func()) { p.done = append(p.done, f) }

func TestOnlyTicksOfTestsThatPassCount(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(TicksVariable, dir)
	rows, all := Rows(Route), 0
	for _, k := range Kinds() {
		all += len(Rows(k))
	}
	for i, p := range []*pretend{{T: t, failed: true}, {T: t, skipped: true}, {T: t}, {T: t}} {
		rows[max(i, 2)].Tick(p)
		if p.failed || p.skipped {
			rows[i].Tick(p)
		}
		for _, f := range p.done {
			f()
		}
	}
	var out strings.Builder
	missing, err := Tally(&out, dir)
	if err != nil || missing != all-2 {
		t.Errorf("%d of %d rows are missing, error %v", missing, all, err)
	}
	for i, want := range []bool{true, true, false, false} {
		if got := strings.Contains(out.String(), rows[i].Name+"\n"); got != want {
			t.Errorf("%s is named: %v, want %v in\n%s", rows[i].Name, got, want, &out)
		}
	}
}

func TestTablesAreReadStrictly(t *testing.T) {
	for text, ok := range map[string]bool{
		"# about\nname\tx\na\tb\n": true, "name\tx\na\n": false, "name\tx\na\tb\na\tc\n": false,
		"name\tx\n\tb\n": false,
	} {
		if _, err := parse(Route, text); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, k := range Kinds() {
		if len(Rows(k)) == 0 {
			t.Errorf("no rows of %s", k)
		}
	}
}
