package fsm

import (
	"testing"

	"quorate/api/neon"
)

// TestImportsAndSplitsExcludeEachOther: the shards that report an import are those
// that it began with.
func TestImportsAndSplitsExcludeEachOther(t *testing.T) {
	id := modelTenant(1)
	imported := BeginImport{Tenant: id, Timeline: modelTimeline(1)}
	splitting, _ := splitOf(t, small(t))
	if next, r := Apply(splitting, splitting.Index+1, RequestID{},
		imported); code(r) != neon.Conflict || next.Importing(id) {
		t.Errorf("an import begins in a split: %+v", r)
	}

	s, _ := must(t, small(t), imported)
	tenant, _ := s.Tenant(id)
	c := BeginSplit{Tenant: id, Sequence: tenant.Sequence, Count: 4, Stripe: tenant.Stripe}
	for sh := range s.TenantShards(id) {
		c.Parents = append(c.Parents,
			SplitParent{Shard: sh.ID, Node: sh.GenNode, Generation: sh.Generation})
	}
	if next, r := Apply(s, s.Index+1, RequestID{}, c); r.Err == nil || next.Splitting(id) {
		t.Errorf("a split begins in an import: %+v", r)
	}
	s, _ = must(t, s, DeleteTimeline{Tenant: id, Timeline: imported.Timeline})
	must(t, s, c)
}
