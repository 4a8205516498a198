package simsafekeeper

import (
	"net"
	"testing"

	"quorate/api/neon"
)

func members(ids ...neon.NodeID) (list neon.List[neon.SafekeeperMember]) {
	for _, id := range ids {
		list = append(list, neon.SafekeeperMember{ID: id})
	}
	return list
}

func TestAComputeNeedsAQuorumOfEverySet(t *testing.T) {
	f := NewFleet()
	t.Cleanup(f.Close)
	for id := neon.NodeID(1); id <= 5; id++ {
		n := f.Add(id, "", func() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") })
		if err := n.Start(); err != nil {
			t.Fatal(err)
		}
	}

	next := members(3, 4, 5)
	joint := neon.Membership{Generation: 2, Members: first.Members, NewMembers: &next}
	have := func(id neon.NodeID, conf neon.Membership) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.nodes[id].timelines[ref] = &timeline{conf: conf}
	}
	all := []neon.NodeID{1, 2, 3, 4, 5}
	write := func(want bool, reach, hold []neon.NodeID) {
		t.Helper()
		if got := f.Write(ref, 16, reach, hold); got != want {
			t.Errorf("a compute that reaches %v and writes to %v: acknowledged %v", reach, hold,
				got)
		}
	}
	f.Commit(1, []Committed{{Ref: ref, Conf: first}})
	for id := neon.NodeID(1); id <= 3; id++ {
		have(id, first)
	}
	write(true, all, []neon.NodeID{1, 2})
	write(false, []neon.NodeID{3}, all)
	write(false, all, []neon.NodeID{1})
	f.Commit(2, []Committed{{Ref: ref, Conf: joint}})
	have(4, joint)
	write(false, all, []neon.NodeID{1, 2, 3}) // 4 says that the new set is needed as well
	write(true, []neon.NodeID{1, 3, 4}, all)
	if conf, _ := f.Node(1).Has(ref); conf.Generation != 2 {
		t.Errorf("the compute did not pass the configuration on: %+v", conf)
	}
	if lost := f.Lost(); len(lost) != 0 || f.Err() != nil {
		t.Errorf("lost %v, %v", lost, f.Err())
	}
	have(3, joint) // without what it had
	if lost := f.Lost(); len(lost) != 1 {
		t.Errorf("lost %v", lost)
	}
	f.Commit(3, []Committed{{Ref: ref, Conf: neon.Membership{Generation: 3, Members: next}}})
	if f.Err() == nil {
		t.Error("a set without the log may be committed")
	}
}
