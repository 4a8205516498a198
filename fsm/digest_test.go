package fsm

import (
	"fmt"
	"reflect"
	"slices"
	"testing"

	"quorate/api/neon"
)

// digested are the records of the state, each with the place where it is kept and a
// way to make a state of it alone. A record that is not here fails the test below.
var digested = []struct {
	field  string
	record any
	state  func(*State, any)
}{
	{"nodes", Node{}, func(s *State, r any) { s.nodeTable.put(r.(Node)) }},
	{"tenants", Tenant{}, func(s *State, r any) { s.tenants.Set(r.(Tenant)) }},
	{"shards", Shard{}, func(s *State, r any) { s.shards.Set(r.(Shard)) }},
	{"splits", Split{}, func(s *State, r any) { s.splits.Set(r.(Split)) }},
	{"safekeepers", Safekeeper{}, func(s *State, r any) {
		w := begin(s)
		w.Index = r.(Safekeeper).Sequence // which setSafekeeper writes
		w.setSafekeeper(r.(Safekeeper))
		s.safekeeperSum = w.safekeeperSum
	}},
	{"timelines", Timeline{}, func(s *State, r any) { s.timelines.Set(r.(Timeline)) }},
	{"ops", SafekeeperOp{}, func(s *State, r any) { s.ops.Set(r.(SafekeeperOp)) }},
	{"imports", Import{}, func(s *State, r any) { s.imports.Set(r.(Import)) }},
	{"deletes", TimelineDelete{}, func(s *State, r any) { s.deletes.Set(r.(TimelineDelete)) }},
	{"done", openRequest{}, func(s *State, r any) {
		q := r.(openRequest)
		s.done.add(request{id: q.ID, kind: q.Kind, index: q.Index})
	}},
	{"deletedTenants", openTombstone{}, func(s *State, r any) {
		g := r.(openTombstone)
		s.deletedTenants.add(tenantTombstone{tenant: g.Tenant, generation: g.Generation})
	}},
	{"outcomes", Outcome{}, func(s *State, r any) { s.outcomes.add(r.(Outcome)) }},
	{"travels", Travel{}, func(s *State, r any) { s.travels.Set(r.(Travel)) }},
	{"Leader", Leader{}, func(s *State, r any) { s.Leader = r.(Leader) }},
	{"Index", uint64(0), func(s *State, r any) { s.Index = r.(uint64) }},
	{"ClusterID", "", func(s *State, r any) { s.ClusterID = r.(string) }},
	{"Epoch", uint64(0), func(s *State, r any) { s.Epoch = r.(uint64) }},
	{"level", uint64(0), func(s *State, r any) { s.level = r.(uint64) }},
}

// derived are the fields of the state that are made of others.
var derived = []string{"byNode", "counts", "owned", "totals", "owed", "nodeSum", "safekeeperSum",
	"removals"}

// openRequest and openTombstone are the records whose fields reflection may not set.
type (
	openRequest struct {
		ID    RequestID
		Kind  Kind
		Index uint64
	}
	openTombstone struct {
		Tenant     neon.TenantID
		Generation neon.Generation
	}
)

// TestEveryFieldIsInTheDigest changes each field of each record alone.
func TestEveryFieldIsInTheDigest(t *testing.T) {
	for _, d := range digested {
		digest := func(r reflect.Value) uint64 {
			s := NewState()
			d.state(s, r.Interface())
			return s.Digest()
		}
		base := reflect.New(reflect.TypeOf(d.record)).Elem()
		fill(t, d.field, base)
		seen := map[uint64]string{digest(base): "nothing changed", NewState().Digest(): "empty"}
		changes := 0
		alter(t, d.field, base, func(field string) {
			changes++
			sum := digest(base)
			if other, same := seen[sum]; same {
				t.Errorf("a change of %s has the digest of %s", field, other)
			}
			seen[sum] = field
		})
		if changes == 0 {
			t.Errorf("%s: nothing was changed", d.field)
		}
	}
}

// TestEveryPartOfTheStateIsInTheDigest: a table or field that is added later has to be
// put into the digest, or be derived.
func TestEveryPartOfTheStateIsInTheDigest(t *testing.T) {
	known := slices.Clone(derived)
	for _, d := range digested {
		known = append(known, d.field)
	}
	found := 0
	var walk func(reflect.Type)
	walk = func(s reflect.Type) {
		for f := range s.NumField() {
			switch f := s.Field(f); {
			case f.Anonymous:
				walk(f.Type)
			case !slices.Contains(known, f.Name):
				t.Errorf("State.%s is neither in the digest nor derived", f.Name)
			default:
				found++
			}
		}
	}
	walk(reflect.TypeOf(State{}))
	if found != len(known) {
		t.Errorf("%d of the fields %v are left", found, known)
	}
	if n := reflect.TypeOf(request{}).NumField() +
		reflect.TypeOf(tenantTombstone{}).NumField(); n != 5 {
		t.Error("openRequest and openTombstone have not all fields")
	}
}

// fill gives every field a value other than zero.
func fill(t *testing.T, at string, v reflect.Value) {
	switch v.Interface().(type) {
	case neon.AZ:
		v.Set(reflect.ValueOf(neon.MakeAZ("a")))
		return
	case neon.TenantConfig:
		v.Set(reflect.ValueOf(config(t, `{"gc_period":"1s"}`)))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, at+"."+v.Type().Field(i).Name, v.Field(i))
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(t, at, v.Index(0))
		fill(t, at, v.Index(1))
	case reflect.Array:
		for i := range v.Len() {
			fill(t, at, v.Index(i))
		}
	case reflect.Bool:
		v.SetBool(true)
	case reflect.String:
		v.SetString("x")
	case reflect.Int, reflect.Int64:
		v.SetInt(2)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(2)
	default:
		t.Fatalf("%s has kind %s, which no test knows", at, v.Kind())
	}
}

// alter calls try with each field of v changed, one after another.
func alter(t *testing.T, at string, v reflect.Value, try func(field string)) {
	with := func(other any) {
		old := reflect.ValueOf(v.Interface())
		v.Set(reflect.ValueOf(other).Convert(v.Type()))
		try(at)
		v.Set(old)
	}
	switch v.Interface().(type) {
	case neon.AZ:
		with(neon.MakeAZ("b"))
		return
	case neon.TenantConfig:
		with(config(t, `{"gc_period":"2s"}`))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			alter(t, at+"."+v.Type().Field(i).Name, v.Field(i), try)
		}
	case reflect.Slice:
		alter(t, at+"[1]", v.Index(1), try)
		with(v.Slice(0, 1).Interface())
	case reflect.Array:
		for _, i := range []int{0, v.Len() - 1} {
			alter(t, fmt.Sprintf("%s[%d]", at, i), v.Index(i), try)
		}
	case reflect.Bool:
		with(false)
	case reflect.String:
		with("y")
	case reflect.Int, reflect.Int64:
		with(int64(3))
	default:
		with(3)
	}
}

func config(t *testing.T, text string) neon.TenantConfig {
	c, err := neon.ParseTenantConfig([]byte(text), neon.RejectUnknown)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestTheDigestTellsTheOrderOfWhatIsForgottenByAge and not how old it was when a
// snapshot was taken.
func TestTheDigestTellsTheOrderOfWhatIsForgottenByAge(t *testing.T) {
	of := func(limit int, ids ...byte) uint64 {
		m := newRequests()
		m.limit = limit
		for _, id := range ids {
			m.add(request{id: RequestID{id}, kind: 1, index: 7})
			if m.sum != m.walked() {
				t.Fatalf("%v: %x, not %x", ids, m.sum, m.walked())
			}
		}
		return m.sum
	}
	if of(9, 1, 2) == of(9, 2, 1) {
		t.Error("two orders have one digest")
	}
	if of(2, 1, 2, 3) != of(9, 2, 3) || of(9, 1, 2, 3, 2) != of(9, 1, 3, 2) {
		t.Error("equal contents have two digests")
	}
}

// TestCheckFindsADigestThatHasDrifted in each table.
func TestCheckFindsADigestThatHasDrifted(t *testing.T) {
	for i, drift := range []func(*txn){
		func(w *txn) { w.nodeSum++ }, func(w *txn) { w.tenants.sum++ },
		func(w *txn) { w.shards.sum++ }, func(w *txn) { w.done.sum++ },
		func(w *txn) { w.deletedTenants.sum++ }, func(w *txn) { w.splits.sum++ },
		func(w *txn) { w.safekeeperSum++ }, func(w *txn) { w.timelines.sum++ },
		func(w *txn) { w.ops.sum++ }, func(w *txn) { w.imports.sum++ },
		func(w *txn) { w.deletes.sum++ }, func(w *txn) { w.outcomes.sum++ },
		func(w *txn) { w.travels.sum++ },
	} {
		w := begin(small(t))
		before := w.Digest()
		drift(w)
		if Check(w.snapshot()) == nil || w.Digest() == before {
			t.Errorf("drift %d: nothing found", i)
		}
	}
}

// goldenDigest is that of the state which the golden log leads to, in DigestScheme 1.
// When it changes DigestScheme is raised: two versions that compute it in two ways would
// take each other for wrong, in the middle of an upgrade.
const goldenDigest = 0xbf9e52f5d0607f0e

func TestTheDigestIsComputedAsItsSchemeSays(t *testing.T) {
	s := NewState()
	for i, c := range history() {
		s, _ = Apply(s, uint64(i)+1, RequestID{1, byte(i)}, c)
	}
	if got := s.Digest(); got != goldenDigest || DigestScheme != 1 {
		t.Errorf("the digest of the golden history is %#x, not %#x, in scheme %d", got,
			uint64(goldenDigest), DigestScheme)
	}
}

func BenchmarkDigest(b *testing.B) {
	s := crowd(b, 1000)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		_ = s.Digest()
	}
}
