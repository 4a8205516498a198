package neonstate

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// Severity says what a finding means for a move.
type Severity string

// The severities.
const (
	Left    Severity = "left"    // has no counterpart, and is lost
	Changed Severity = "changed" // is taken otherwise than it stands
	Wrong   Severity = "wrong"   // cannot be right: nothing is moved until it is mended or accepted
)

// Code names what was found, for programs.
type Code string

// The codes of what is found in the rows of an existing controller.
const (
	UnknownSchema     Code = "unknown_schema"
	IncompleteSchema  Code = "incomplete_schema"
	UnusedRows        Code = "unused_rows"
	BadRow            Code = "bad_row"
	UnknownSetting    Code = "unknown_setting"
	IncompleteTenant  Code = "incomplete_tenant"
	SplitUnderWay     Code = "split_under_way"
	SplitFlag         Code = "split_flag"
	MixedSettings     Code = "mixed_settings"
	NoGeneration      Code = "no_generation"
	OwnerWithout      Code = "owner_without_generation"
	UnknownNode       Code = "unknown_node"
	DeletedNode       Code = "deleted_node"
	OwnerUnwanted     Code = "owner_unwanted"
	GenerationTooHigh Code = "generation_too_high"
	GenerationBehind  Code = "generation_behind"
	Tombstone         Code = "tombstone"
	OperationUnknown  Code = "operation_unknown"
	UnknownSafekeeper Code = "unknown_safekeeper"
	BadTimeline       Code = "bad_timeline"
	DeletedTimeline   Code = "deleted_timeline"
	OrphanTimeline    Code = "orphan_timeline"
	StaleOperation    Code = "stale_operation"
	BadImport         Code = "bad_import"
	MoreLeaders       Code = "more_leaders"
	NotListed         Code = "pageserver_silent"
	NotAsked          Code = "pageservers_not_asked"
	NotWanted         Code = "location_unknown"
	AttachedElsewhere Code = "attached_elsewhere"
	EmptyDatabase     Code = "empty_database"
	AttachedStranger  Code = "attached_without_row"
)

// The codes of what is found in our state.
const (
	TenantDeleting   Code = "tenant_deleting"
	TimelineDeleting Code = "timeline_deleting"
	Travelling       Code = "time_travel"
	NodeOperation    Code = "node_operation"
	MoveUnderWay     Code = "move_under_way"
	Unmanaged        Code = "unmanaged"
	ImportFinished   Code = "import_finished"
	SafekeeperGone   Code = "safekeeper_gone"
	Exhausted        Code = "exhausted"
)

// Finding is one thing that an operator should know.
type Finding struct {
	Severity Severity `json:"severity"`
	Code     Code     `json:"code"`
	Subject  string   `json:"subject"`
	Text     string   `json:"text"`
}

func (f Finding) String() string {
	return fmt.Sprintf("%-7s %s: %s: %s", f.Severity, f.Code, f.Subject, f.Text)
}

// Findings are all of them, the gravest first.
type Findings []Finding

func (f *Findings) add(s Severity, c Code, subject any, format string, args ...any) {
	*f = append(*f, Finding{s, c, fmt.Sprint(subject), fmt.Sprintf(format, args...)})
}

// Sort puts the gravest first.
func (f Findings) Sort() {
	rank := map[Severity]int{Wrong: 0, Changed: 1, Left: 2}
	slices.SortStableFunc(f, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(rank[a.Severity], rank[b.Severity]),
			cmp.Compare(a.Code, b.Code), cmp.Compare(a.Subject, b.Subject))
	})
}

// never are the codes that nobody can accept: numbers would be issued twice.
var never = []Code{Exhausted}

// Blocking are the codes of what is wrong and not accepted.
func (f Findings) Blocking(accepted []Code) []Code {
	found := map[Code]bool{}
	for _, one := range f {
		if one.Severity == Wrong &&
			(slices.Contains(never, one.Code) || !slices.Contains(accepted, one.Code)) {
			found[one.Code] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// Count is how many have a code.
func (f Findings) Count(c Code) (n int) {
	for _, one := range f {
		if one.Code == c {
			n++
		}
	}
	return n
}
