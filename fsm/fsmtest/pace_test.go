package fsmtest_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/fsm/fsmtest"
	"quorate/internal/wait"
)

// A loop without a pause is told of once, and slowed down so that time goes on. One
// with a pause, and much work about many things, is not.
func TestPaceFindsLoopsWithoutAPause(t *testing.T) {
	shard := func(n byte) neon.ShardID { return neon.Unsharded(neon.TenantID{n}) }
	issue := func(n byte) fsm.Command {
		return fsm.IssueGenerations{Items: []fsm.Issue{{Shard: shard(n), Node: 1}}}
	}
	config := func(i int) fsm.Command {
		return fsm.UpdateTenant{ID: neon.TenantID{byte(i), byte(i >> 8)}}
	}
	same := func(c fsm.Command) func(int) fsm.Command { return func(int) fsm.Command { return c } }
	for name, tt := range map[string]struct {
		propose func(i int) fsm.Command
		pause   time.Duration
		size    int
		found   string
	}{
		"no pause":            {same(issue(1)), 0, 120, shard(1).String()},
		"a pause too short":   {same(issue(1)), 10 * time.Millisecond, 120, "IssueGenerations"},
		"a pause":             {same(issue(1)), 50 * time.Millisecond, 120, ""},
		"many things":         {func(i int) fsm.Command { return issue(byte(i)) }, 0, 120, ""},
		"more than there are": {config, 0, 20, "UpdateTenant"},
		"one tenant":          {same(config(1)), 0, 120, "UpdateTenant"},
		"nothing by name":     {same(fsm.SetLeader{}), 0, 120, "SetLeader"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &fsmtest.Pace{Size: func() int { return tt.size }}
				begun := time.Now()
				var told []string
				for i := range 1000 {
					if err := p.Note(tt.propose(i)); err != nil {
						told = append(told, err.Error())
					}
					_ = wait.Sleep(t.Context(), tt.pause)
				}
				switch {
				case tt.found == "" && len(told) > 0:
					t.Errorf("found %v", told)
				case tt.found != "" && (len(told) == 0 || !strings.Contains(told[len(told)-1], tt.found)):
					t.Errorf("%q is not found: %v", tt.found, told)
				case len(told) > 2:
					t.Errorf("told %d times", len(told))
				case tt.found != "" && time.Since(begun) == 0:
					t.Error("time stands still")
				}
			})
		})
	}
}

// A call is judged by what is called.
func TestPaceFindsCallsWithoutAPause(t *testing.T) {
	for pause, found := range map[time.Duration]bool{0: true, time.Millisecond: false} {
		synctest.Test(t, func(t *testing.T) {
			p := &fsmtest.Pace{}
			begun, told := time.Now(), 0
			for range 5000 {
				if err := p.Call("node 1"); err != nil {
					told++
				}
				if err := p.Call("node 2"); err != nil && pause > 0 {
					t.Error(err)
				}
				_ = wait.Sleep(t.Context(), pause)
			}
			if (told == 1) != found || time.Since(begun) == 0 {
				t.Errorf("with a pause of %s: told %d times in %s", pause, told, time.Since(begun))
			}
		})
	}
}
