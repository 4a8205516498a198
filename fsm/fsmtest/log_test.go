package fsmtest_test

import (
	"context"
	"errors"
	"testing"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/fsm/fsmtest"
)

var zone = neon.MakeAZ("a")

func TestProposalsAreAppliedInTheOrderOfTheLog(t *testing.T) {
	log := fsmtest.NewLog()
	var seen []uint64
	log.Subscribe(func(s *fsm.State, _ fsm.Touched) { seen = append(seen, s.Index) })
	log.AddNodes(t, 2, zone)
	commands := log.Commands()
	if len(commands) != 4 || len(seen) != 4 || seen[0] != 1 || seen[3] != 4 {
		t.Errorf("%d commands, told of the indexes %d", len(commands), seen)
	}
	if first, ok := commands[0].(fsm.RegisterNode); !ok || first.ID != 1 {
		t.Errorf("the first command is %#v", commands[0])
	}
	read, err := log.ReadState(t.Context())
	if err != nil || read != log.State() {
		t.Errorf("a read is not of the newest state: %v", err)
	}
	if n, ok := read.Node(2); !ok || n.Availability != neon.NodeActive {
		t.Errorf("node 2 is %+v", n)
	}
}

func TestRefusalsComeWithTheirResultAndStandInTheLog(t *testing.T) {
	log := fsmtest.NewLog()
	r, err := log.Propose(t.Context(), fsm.RequestID{},
		fsm.SetNodeScheduling{Node: 9, Scheduling: neon.SchedulingPause})
	if err == nil || !errors.Is(err, r.Err) || len(log.Commands()) != 1 {
		t.Errorf("refused with %v and %v, %d commands", err, r.Err, len(log.Commands()))
	}
}

func TestNothingIsProposedAfterTheEndOfTheContext(t *testing.T) {
	log := fsmtest.NewLog()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := log.Propose(ctx, fsm.RequestID{}, fsm.SetLeader{}); !errors.Is(err,
		context.Canceled) {
		t.Errorf("proposed: %v", err)
	}
	if n := len(log.Commands()); n != 0 {
		t.Errorf("%d commands", n)
	}
}

func TestLargeCommandsAreRefusedAsTheRealLogDoes(t *testing.T) {
	log := fsmtest.NewLog()
	_, err := log.Commit(fsm.RequestID{}, fsm.SetLeader{
		Leader: fsm.Leader{Address: string(make([]byte, 2<<20))},
	})
	var e *neon.Error
	if !errors.As(err, &e) || e.Code != neon.BadRequest || len(log.Commands()) != 0 {
		t.Errorf("%v", err)
	}
}
