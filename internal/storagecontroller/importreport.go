package storagecontroller

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"quorate/internal/handover"
	"quorate/internal/neonstate"
)

// print prints what a plan or a cut-over has found.
func (f *importFlags) print(out io.Writer, r *handover.Report) error {
	if f.output == "json" {
		return printJSON(out, r)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "schema       %s\n", described(r.Schema.Migration))
	if len(r.Schema.Missing) > 0 {
		fmt.Fprintf(&b, "older        without %s\n", strings.Join(r.Schema.Missing, ", "))
	}
	for _, name := range slices.Sorted(maps.Keys(r.Schema.Unknown)) {
		fmt.Fprintf(&b, "unknown      %s, %d values\n", name, r.Schema.Unknown[name])
	}
	leader := "none"
	if r.Leader != nil {
		leader = r.Leader.Address + " since " + r.Leader.StartedAt.UTC().Format(time.RFC3339)
	}
	fmt.Fprintf(&b, "leader       %s\n", leader)
	if m := r.Mark; m != nil {
		fmt.Fprintf(&b, "taken        %s at %s (%s)\n", m.ID, m.At.UTC().Format(time.RFC3339), m.Kind)
	}
	c := r.Counts
	fmt.Fprintf(&b, "tenants      %d, %d of them detached\n", c.Tenants, c.Detached)
	fmt.Fprintf(&b, "shards       %d, %d of them attached\n", c.Shards, c.Attached)
	fmt.Fprintf(&b, "pageservers  %d, and %d tombstones\n", c.Pageservers, c.Tombstones)
	fmt.Fprintf(&b, "splits       %d that will be undone\n", c.Splits)
	fmt.Fprintf(&b, "safekeepers  %d, owing %d operations\n", c.Safekeepers, c.Operations)
	fmt.Fprintf(&b, "timelines    %d on safekeepers, %d being imported\n", c.Timelines, c.Imports)
	writeFindings(&b, "", r.Findings)
	if len(r.Blocking) > 0 {
		fmt.Fprintf(&b, "\nNothing is moved while this is wrong: %v\n", r.Blocking)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func described(migration string) string {
	if migration == "" {
		return "no migration is noted"
	}
	return "of migration " + migration
}

// shownFindings bounds how many findings of one code are printed; JSON has all.
const shownFindings = 20

func writeFindings(w io.Writer, prefix string, all neonstate.Findings) {
	if len(all) > 0 && prefix == "" {
		fmt.Fprintln(w)
	}
	shown := map[neonstate.Code]int{}
	for _, one := range all {
		if shown[one.Code]++; shown[one.Code] <= shownFindings {
			fmt.Fprintf(w, "%s%s\n", prefix, one)
		}
	}
	for _, code := range slices.Sorted(maps.Keys(shown)) {
		if n := shown[code] - shownFindings; n > 0 {
			fmt.Fprintf(w, "%sand %d more of %s (-o json has all)\n", prefix, n, code)
		}
	}
}

// printSeen prints what has changed since the last look.
func (f *importFlags) printSeen(out io.Writer, s handover.Seen) error {
	if len(s.Changes)+len(s.Findings)+len(s.Gone) == 0 {
		return nil
	}
	if f.output == "json" {
		return json.NewEncoder(out).Encode(s) // a line each
	}
	var b strings.Builder
	fmt.Fprintln(&b, s.At.Format(time.RFC3339))
	for _, c := range s.Changes {
		fmt.Fprintln(&b, "  "+c.String())
	}
	writeFindings(&b, "  ! ", s.Findings)
	writeFindings(&b, "  no more: ", s.Gone)
	_, err := io.WriteString(out, b.String())
	return err
}
