package fsm

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"quorate/api/neon"
)

// requestCommand draws a command about requests.
func (m *machine) requestCommand(t *rapid.T) Command {
	switch rapid.IntRange(0, 3).Draw(t, "about requests") {
	case 0:
		return SetPeerSecret{Secret: make([]byte,
			rapid.SampledFrom([]int{0, PeerSecretSize}).Draw(t, "secret"))}
	case 1:
		return NoteRequest{}
	}
	return BeginKeyed{
		Key: RequestID{0xff, byte(rapid.IntRange(0, 3).Draw(t, "key"))},
		At:  int64(m.index) * KeyMillis / 16,
	}
}

// keyed is sometimes the key of a request that was begun and not carried out.
func (m *machine) keyed(t *rapid.T) (key RequestID, ok bool) {
	if !rapid.Bool().Draw(t, "under a key") {
		return key, false
	}
	m.s.keyed.values(func(k KeyedRequest) bool {
		key, ok = k.Key, k.Done == 0
		return !ok
	})
	return key, ok
}

// anyReAttach sometimes names an incarnation, often the right one.
func (m *machine) anyReAttach(t *rapid.T) Command {
	c := ReAttach{Node: drawNode.Draw(t, "node")}
	if n, ok := m.s.Node(c.Node); ok && rapid.Bool().Draw(t, "incarnation") {
		c.Incarnation = n.Incarnation + uint64(rapid.IntRange(0, 2).Draw(t, "start"))
	}
	return c
}

// dumpRequests prints what is remembered for requests that are repeated or late.
func dumpRequests(b []byte, s *State) []byte {
	s.keyed.values(func(k KeyedRequest) bool {
		b = fmt.Appendf(b, "key %x print=%x at=%d done=%d\n", k.Key, k.Print, k.At, k.Done)
		return true
	})
	s.deletedTimelines.values(func(g timelineTombstone) bool {
		b = fmt.Appendf(b, "timeline grave %s index=%d\n", g.ref, g.index)
		return true
	})
	return b
}

func upgraded(t testing.TB, s *State) *State {
	s, _ = must(t, s, SetLevel{Level: Level})
	return s
}

func TestAKeyIsOfOneRequestForADay(t *testing.T) {
	s := upgraded(t, small(t))
	first := BeginKeyed{Key: RequestID{1}, Print: [16]byte{1}, At: 1000}
	s, _ = must(t, s, first)
	for _, at := range []int64{1000, 0, 1000 + KeyMillis - 1} {
		again := first
		again.At, again.Print = at, [16]byte{2}
		if _, r := Apply(s, s.Index+1, RequestID{}, again); neon.CodeOf(r.Err) != neon.Conflict {
			t.Errorf("at %d: %+v", at, r)
		}
	}
	next, _ := must(t, s, BeginKeyed{Key: first.Key, Print: [16]byte{2}, At: 1000 + KeyMillis})
	if k, ok := next.Keyed(first.Key); !ok || k.Print != ([16]byte{2}) || k.Done != 0 {
		t.Errorf("a day later it is %+v", k)
	}
	if _, r := Apply(s, s.Index+1, RequestID{}, BeginKeyed{At: 1}); r.Err == nil {
		t.Error("a request has no key")
	}
}

// Whether a request under a key was carried out is kept for as long as the key, however
// many other requests come.
func TestARequestUnderAKeyIsRememberedAsLongAsItsKey(t *testing.T) {
	w := begin(upgraded(t, small(t)))
	key := RequestID{1}
	w.run(w.Index+1, RequestID{}, BeginKeyed{Key: key, At: 1})
	pause := SetNodeScheduling{Node: 1, Scheduling: neon.SchedulingPause}
	if _, done := w.Done(key); done {
		t.Error("it is done and was only begun")
	}
	if r := w.run(w.Index+1, key, SetNodeScheduling{Node: 99}); r.Err == nil {
		t.Fatal("not refused")
	}
	if _, done := w.Done(key); done {
		t.Error("a refusal counts as done")
	}
	first := w.run(w.Index+1, key, pause)
	for n := range keptRequests + 10 {
		w.run(w.Index+1, RequestID{2, byte(n >> 16), byte(n >> 8), byte(n)}, NoteRequest{})
	}
	s := restored(t, w.snapshot())
	if index, done := s.Done(key); !done || index != first.Index {
		t.Errorf("done at %d, %v", index, done)
	}
	for _, c := range []Command{pause, NoteRequest{}} {
		if _, r := Apply(s, s.Index+1, key, c); !r.Duplicate || r.Index != first.Index {
			t.Errorf("%#v under the key of a request that is done: %+v", c, r)
		}
	}
}

func TestARequestIsDoneByWhateverCommandItHas(t *testing.T) {
	s := upgraded(t, small(t))
	id := RequestID{7}
	if _, done := s.Done(id); done {
		t.Error("done before it came")
	}
	s, r := Apply(s, s.Index+1, id, NoteRequest{})
	if index, done := s.Done(id); !done || index != r.Index {
		t.Errorf("done at %d, %v", index, done)
	}
	if _, done := s.Done(RequestID{}); done {
		t.Error("work of nobody is done")
	}
}

// A decision that was refused for all that it was about may be made anew for its request.
func TestIntentsThatAreAllRefusedAreNoEntryOfTheirRequest(t *testing.T) {
	s := upgraded(t, small(t))
	id := RequestID{7}
	stale := SetIntents{Intents: []Intent{{Shard: shardsOf(s, modelTenant(1))[0].ID, Attached: 2}}}
	s, r := Apply(s, s.Index+1, id, stale)
	if _, done := s.Done(id); done || len(r.Refused) != 1 {
		t.Errorf("%+v, done %v", r, done)
	}
}

func TestTheSecretOfTheMembersIsSetOnce(t *testing.T) {
	s := upgraded(t, small(t))
	secret := make([]byte, PeerSecretSize)
	secret[0] = 1
	if _, r := Apply(s, s.Index+1, RequestID{}, SetPeerSecret{Secret: secret[1:]}); r.Err == nil {
		t.Error("a short one is taken")
	}
	s, _ = must(t, s, SetPeerSecret{Secret: secret})
	_, r := Apply(s, s.Index+1, RequestID{}, SetPeerSecret{Secret: make([]byte, PeerSecretSize)})
	if neon.CodeOf(r.Err) != neon.Conflict {
		t.Errorf("it is replaced: %+v", r)
	}
	if got := restored(t, s); string(got.PeerSecret) != string(secret) {
		t.Errorf("after a snapshot it is %x", got.PeerSecret)
	}
	if other, err := Recover(s, "other"); err != nil || len(other.PeerSecret) > 0 {
		t.Errorf("another cluster has %x, %v", other.PeerSecret, err)
	}
}

func TestTheEndOfATimelineIsRemembered(t *testing.T) {
	ref := neon.TimelineRef{Tenant: modelTenant(1), Timeline: neon.TimelineID{9}}
	s := small(t)
	s, _ = must(t, s, DeleteTimeline{Tenant: ref.Tenant, Timeline: ref.Timeline})
	if _, known := s.TimelineDeleted(ref); known {
		t.Error("versions of the first level do not remember it")
	}
	s = upgraded(t, s)
	s, r := must(t, s, DeleteTimeline{Tenant: ref.Tenant, Timeline: ref.Timeline})
	if index, known := restored(t, s).TimelineDeleted(ref); !known || index != r.Index {
		t.Errorf("deleted at %d, %v, not at %d", index, known, r.Index)
	}
}

func TestAStartIsOfTheIncarnationThatItNames(t *testing.T) {
	s := upgraded(t, small(t))
	for _, wrong := range []uint64{2, 7} {
		_, r := Apply(s, s.Index+1, RequestID{}, ReAttach{Node: 1, Incarnation: wrong})
		if neon.CodeOf(r.Err) != neon.Conflict {
			t.Errorf("incarnation %d: %+v", wrong, r)
		}
	}
	s, _ = must(t, s, ReAttach{Node: 1, Incarnation: 1})
	if _, r := Apply(s, s.Index+1, RequestID{}, ReAttach{Node: 1, Incarnation: 1}); r.Err == nil {
		t.Error("it began twice")
	}
}

func TestAnAttachmentByHandMayBeConditional(t *testing.T) {
	s := upgraded(t, small(t))
	shard := shardsOf(s, modelTenant(1))[0]
	c := AttachUnmanaged{Shard: shard.ID, Node: 2, Sequence: shard.Sequence + 1}
	if _, r := Apply(s, s.Index+1, RequestID{}, c); neon.CodeOf(r.Err) != neon.Conflict {
		t.Errorf("%+v", r)
	}
	c.Sequence = shard.Sequence
	s, r := must(t, s, c)
	if sh, _ := s.Shard(shard.ID); sh.Sequence != r.Index {
		t.Errorf("attached at %d: %+v", r.Index, sh)
	}
}
