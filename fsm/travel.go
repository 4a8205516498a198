package fsm

import (
	"iter"
	"slices"

	"quorate/api/neon"
)

// Travel is the replicated record of a tenant whose remote data is being put back to a
// moment in the past. Until EndTravel the tenant stays nowhere: nothing changes it, and
// none is created under its id. It need not exist.
type Travel struct {
	Tenant neon.TenantID `cbor:"1,keyasint"`
	Began  uint64        `cbor:"2,keyasint"` // log index; names this try

	To          string            `cbor:"3,keyasint"`
	DoneIfAfter string            `cbor:"4,keyasint"`
	Counts      []neon.ShardCount `cbor:"5,keyasint,omitempty"` // shared, must not be modified
}

// travelTable holds the time travels by tenant.
type travelTable struct{ travels table[neon.TenantID, Travel] }

func newTravelTable() travelTable {
	return travelTable{newTable(tagTravel, func(t *Travel) neon.TenantID { return t.Tenant },
		neon.TenantID.Less, cborRecord[Travel])}
}

func (t *travelTable) copy() travelTable { return travelTable{t.travels.copy()} }

// Travel finds the time travel of a tenant that has not ended.
func (t *travelTable) Travel(id neon.TenantID) (Travel, bool) {
	return t.travels.Get(id)
}

// Travels yields the time travels by tenant.
func (t *travelTable) Travels() iter.Seq[Travel] {
	return func(yield func(Travel) bool) { t.travels.Scan(yield) }
}

// Travelling reports whether there are any.
func (t *travelTable) Travelling() bool { return t.travels.Len() > 0 }

// BeginTravel records that the remote data of a tenant is to be put back, before any
// pageserver hears of it. A tenant that exists is Detached, and is not being deleted.
// Recording the same once more is accepted, and changes nothing.
type BeginTravel struct {
	Tenant      neon.TenantID     `cbor:"1,keyasint"`
	To          string            `cbor:"2,keyasint"`
	DoneIfAfter string            `cbor:"3,keyasint"`
	Counts      []neon.ShardCount `cbor:"4,keyasint,omitempty"`
}

// Level is the second: the first version knows no time travel.
func (BeginTravel) Level() uint64 { return secondLevel }

func (c BeginTravel) apply(t *txn) Result {
	if len(c.To) > maxName || len(c.DoneIfAfter) > maxName || len(c.Counts) > maxName {
		return refuse(neon.BadRequest, "the time travel of tenant %s is too long", c.Tenant)
	}
	next := Travel{
		Tenant: c.Tenant, Began: t.Index, To: c.To, DoneIfAfter: c.DoneIfAfter,
		Counts: slices.Clone(c.Counts),
	}
	if last, ok := t.Travel(c.Tenant); ok && last.same(next) {
		return Result{}
	}
	if r := t.Frozen(c.Tenant); r.Err != nil {
		return r
	}
	switch tenant, ok := t.Tenant(c.Tenant); {
	case ok && tenant.Deleting:
		return refuse(neon.Conflict, "Tenant %s is being deleted", c.Tenant)
	case ok && tenant.Policy.Kind != neon.PlaceDetached:
		return refuse(neon.Conflict, "Tenant %s is not detached", c.Tenant)
	}
	t.travels.Set(next)
	t.touched.Tenants = append(t.touched.Tenants, c.Tenant)
	return Result{}
}

// same reports whether two time travels lead to the same.
func (r Travel) same(o Travel) bool {
	return r.Tenant == o.Tenant && r.To == o.To && r.DoneIfAfter == o.DoneIfAfter &&
		slices.Equal(r.Counts, o.Counts)
}

// EndTravel ends the time travel that was begun at an index. The proposer knows that no
// pageserver is at it any more. One that is over is passed over. The deletions of timelines
// of the tenant that have not ended were not made: they would take away what was put back.
type EndTravel struct {
	Tenant neon.TenantID `cbor:"1,keyasint"`
	Began  uint64        `cbor:"2,keyasint"`

	// Failed says that the data was not put back, or not all of it. The request that has
	// begun it was not done then.
	Failed bool `cbor:"3,keyasint,omitempty"`
}

// Level is the second: the first version knows no time travel.
func (EndTravel) Level() uint64 { return secondLevel }

func (c EndTravel) apply(t *txn) Result {
	if r, ok := t.Travel(c.Tenant); ok && r.Began == c.Began {
		t.travels.Delete(r.Tenant)
		t.touched.Tenants = append(t.touched.Tenants, c.Tenant)
		if c.Failed {
			t.forgetRequest(c.Began)
			return Result{}
		}
		for _, d := range t.deletesOf(c.Tenant) {
			t.deletes.Delete(d.Ref())
			t.touched.Timelines = true
			t.forgetRequest(d.Sequence)
		}
	}
	return Result{}
}

// checkTravels verifies that nothing is where remote data is being put back.
func checkTravels(c *checker) {
	c.s.travels.Scan(func(r Travel) bool {
		if t, ok := c.s.Tenant(r.Tenant); ok &&
			(t.Deleting || t.Policy.Kind != neon.PlaceDetached || c.s.Splitting(t.ID)) {
			c.fail("tenant %s travels in time and is placed %v, deleting %v", t.ID, t.Policy,
				t.Deleting)
		}
		if r.Began == 0 || r.Began > c.s.Index {
			c.fail("tenant %s travels in time since %d", r.Tenant, r.Began)
		}
		return len(c.errs) < 32
	})
}
