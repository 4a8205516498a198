package api

import (
	"context"
	"slices"
	"strings"
	"testing"

	"quorate/api/neon"
)

// fakeMembers changes the members of a world. Only its leader can.
type fakeMembers struct{ *replica }

func (f fakeMembers) List(context.Context) neon.Cluster {
	w := f.world
	w.mu.Lock()
	defer w.mu.Unlock()
	view := neon.Cluster{ID: "c", Members: []neon.ClusterMember{}, Current: w.leader >= 0}
	for _, id := range w.members {
		view.Members = append(view.Members, neon.ClusterMember{ID: id})
	}
	return view
}

func (f fakeMembers) leads() error {
	if leader, _ := f.world.leads(); leader != f.at {
		return neon.Errorf(neon.NotLeader, "not the leader")
	}
	return nil
}

func (f fakeMembers) Add(_ context.Context, r neon.MemberAdd) (neon.MemberAdded, error) {
	if err := f.leads(); err != nil {
		return neon.MemberAdded{}, err
	}
	if r.RaftAddr == "" {
		return neon.MemberAdded{}, &neon.Error{
			Code: neon.PreconditionFailed, Reason: "unreachable", Msg: "it is not there",
		}
	}
	w := f.world
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Contains(w.members, r.ID) {
		w.members = append(w.members, r.ID)
	}
	role := neon.RoleVoter
	if r.Standby {
		role = neon.RoleLearner
	}
	return neon.MemberAdded{ID: r.ID, RaftAddr: r.RaftAddr, Role: role, Start: []string{}}, nil
}

// Remove hands over when the id is that of the leader, which is its number.
func (f fakeMembers) Remove(_ context.Context, id string) error {
	if err := f.leads(); err != nil {
		return err
	}
	if id == string(rune('0'+f.at)) {
		f.world.setLeader((f.at + 1) % len(f.world.replicas))
		return f.leads()
	}
	w := f.world
	w.mu.Lock()
	defer w.mu.Unlock()
	w.members = slices.DeleteFunc(w.members, func(m string) bool { return m == id })
	return nil
}

func (f fakeMembers) Replace(
	ctx context.Context, old string, r neon.MemberAdd,
) (neon.MemberAdded, error) {
	added, err := f.Add(ctx, r)
	if err == nil {
		err = f.Remove(ctx, old)
	}
	return added, err
}

func (f fakeMembers) Transfer(_ context.Context, to string) error {
	if err := f.leads(); err != nil {
		return err
	}
	if strings.Trim(to, "0123456789") == "" && to != "" {
		f.world.setLeader(int(to[0] - '0'))
	}
	return nil
}

// Any replica takes a change. It is made where leadership is, also when it moves meanwhile.
func TestMembersAreChangedThroughAnyReplica(t *testing.T) {
	w := newWorld(t, setup{replicas: 3})
	w.members = []string{"0", "1", "2"}
	const members = "/control/v1/cluster/members"
	play(t, w.replicas[2], []step{
		{
			"POST", members, `{"id":"3","raft_addr":"h3:1"}`, 200,
			`{"id":"3","raft_addr":"h3:1","role":"voter","start":[]}`,
		},
		{
			"POST", members, `{"id":"4"}`, 412,
			`{"msg":"Precondition failed: it is not there","code":"unreachable"}`,
		},
		{"DELETE", members + "/3", "", 200, `null`},
		{"DELETE", members + "/0", "", 200, `null`}, // the leader
		{
			"POST", members + "/1/replace", `{"id":"5","raft_addr":"h5:1"}`, 200,
			`{"id":"5","raft_addr":"h5:1","role":"voter","start":[]}`,
		},
		{"PUT", "/control/v1/cluster/transfer", `{"to":"0"}`, 200, `null`},
	})
	if want := []string{"2", "5"}; !slices.Equal(w.members, want) {
		t.Errorf("the members are %q, want %q", w.members, want)
	}
	if leader, _ := w.leads(); leader != 0 {
		t.Errorf("%d leads", leader)
	}
}

// The client may want to know why there is no leader.
func TestMembersAreListedWithoutALeader(t *testing.T) {
	w := newWorld(t, setup{replicas: 2})
	w.members = []string{"0", "1"}
	w.setLeader(-1)
	g := w.replicas[1].do("GET", "/control/v1/cluster/members", "")
	if g.status != 200 || !strings.Contains(g.body, `"current":false`) ||
		!strings.Contains(g.body, `"id":"1"`) {
		t.Errorf("%d %s", g.status, g.body)
	}
}
