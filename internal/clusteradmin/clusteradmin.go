// Package clusteradmin is what operators do with the members of the cluster, by HTTP and
// on the control socket: list, add, remove and replace members, and hand leadership over.
// It gives package cluster's answers and errors the form in which they are shown.
//
// It may decide nothing: whether a change is safe is the business of package cluster.
package clusteradmin

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"quorate/api/neon"
	"quorate/cluster"
	"quorate/internal/decide"
)

// Cluster is what must be known of the Raft member.
type Cluster interface {
	changer
	viewer
	TransferLeadership(ctx context.Context, to string) error
}

// changer changes who is in the cluster.
type changer interface {
	AddMember(ctx context.Context, m cluster.Member) error
	AddStandby(ctx context.Context, m cluster.Member) error
	RemoveMember(ctx context.Context, id string) error
	ReplaceMember(ctx context.Context, old string, by cluster.Member) error
}

// viewer describes the cluster.
type viewer interface {
	ReadBarrier(ctx context.Context) error
	Members() []cluster.MemberStatus
	Status() cluster.Status
	Applicants() []cluster.Applicant
}

// Options are what an Admin is made of.
type Options struct {
	Cluster Cluster
	Level   func() uint64 // the agreed feature level; nil: not known
	TLS     bool          // the members talk over TLS
}

// Admin carries out the commands of operators.
type Admin struct{ o Options }

// New makes an Admin.
func New(o Options) *Admin { return &Admin{o} }

// freshness bounds how long a list waits for the newest membership.
const freshness = time.Second

// List returns the members as this replica sees them. If a leader answers, the list has
// every change that was made before the call, and is marked as current.
func (a *Admin) List(ctx context.Context) neon.Cluster {
	ctx, cancel := context.WithTimeout(ctx, freshness)
	defer cancel()
	current := a.o.Cluster.ReadBarrier(ctx) == nil
	view := a.View()
	view.Current = current
	return view
}

// View is List without a wait. It is never marked as current.
func (a *Admin) View() neon.Cluster {
	s := a.o.Cluster.Status()
	out := neon.Cluster{
		ID: s.ClusterID, Server: s.ID, Leader: s.Leader, Term: s.Term,
		CommitIndex: s.CommitIndex, AppliedIndex: s.AppliedIndex, Members: []neon.ClusterMember{},
	}
	if a.o.Level != nil {
		out.Level = a.o.Level()
	}
	for _, m := range a.o.Cluster.Members() {
		out.Members = append(out.Members, member(m))
	}
	for _, w := range a.o.Cluster.Applicants() {
		out.Waiting = append(out.Waiting, neon.ClusterApplicant{
			ID: w.ID, RaftAddr: w.RaftAddr, HTTPAddr: w.HTTPAddr,
		})
	}
	slices.SortFunc(out.Waiting, func(x, y neon.ClusterApplicant) int {
		return strings.Compare(x.ID, y.ID)
	})
	return out
}

func member(m cluster.MemberStatus) neon.ClusterMember {
	out := neon.ClusterMember{
		ID: m.ID, RaftAddr: m.RaftAddr, HTTPAddr: m.HTTPAddr, Role: role(m),
		Connected: m.Connected, LastContact: "never", Applied: m.AppliedIndex, Lag: m.Lag,
		Level: m.Level, Version: m.Version, Equality: m.Equality(), Disk: neon.DiskUnknown,
	}
	if m.LastContact >= 0 {
		out.LastContact = m.LastContact.Round(time.Millisecond).String()
	}
	if !m.Connected {
		return out
	}
	out.Uptime = m.Uptime.String()
	out.Divergence = m.Diverged
	if out.Disk = neon.DiskHealthy; m.Sick {
		out.Disk, out.DiskReason = neon.DiskUnhealthy, m.SickReason
	}
	return out
}

func role(m cluster.MemberStatus) string {
	switch {
	case m.Leader:
		return neon.RoleLeader
	case m.Voter:
		return neon.RoleVoter
	}
	return neon.RoleLearner
}

// Add adds a member, on the leader. It returns when the member has its vote, or, as a
// standby, when it is a member.
func (a *Admin) Add(ctx context.Context, r neon.MemberAdd) (neon.MemberAdded, error) {
	m, err := a.newcomer(r.ID, r.RaftAddr)
	if err == nil {
		add := a.o.Cluster.AddMember
		if r.Standby {
			add = a.o.Cluster.AddStandby
		}
		err = a.change(ctx, func() error { return add(ctx, m) })
	}
	if err != nil {
		return neon.MemberAdded{}, a.startFirst(err, m)
	}
	return a.added(m), nil
}

// Remove removes a member, on the leader. If that is the leader, it hands over, and the
// error is of the class NotLeader.
func (a *Admin) Remove(ctx context.Context, id string) error {
	return a.change(ctx, func() error { return a.o.Cluster.RemoveMember(ctx, id) })
}

// Replace adds a member and then removes another one, on the leader.
func (a *Admin) Replace(
	ctx context.Context, old string, r neon.MemberAdd,
) (neon.MemberAdded, error) {
	m, err := a.newcomer(r.ID, r.RaftAddr)
	if err == nil {
		err = a.change(ctx, func() error { return a.o.Cluster.ReplaceMember(ctx, old, m) })
	}
	if err != nil {
		return neon.MemberAdded{}, a.startFirst(err, m)
	}
	return a.added(m), nil
}

// Transfer hands leadership over, on the leader; an empty id means the most up to date
// voter. It is done if the member leads already.
func (a *Admin) Transfer(ctx context.Context, to string) error {
	if to != "" && to == a.o.Cluster.Status().Leader {
		return nil
	}
	return a.change(ctx, func() error { return a.o.Cluster.TransferLeadership(ctx, to) })
}

// change makes a change and gives its error a class. A leader that loses its lead may
// have made a part of the change.
func (a *Admin) change(ctx context.Context, f func() error) error {
	s := a.o.Cluster.Status()
	err := f()
	if s.Leader == s.ID && err != nil && mayHaveActed(err) {
		decide.Acted(ctx)
	}
	return a.refusal(err)
}

// newcomer finds out where a server is that is to be added: where it says that it is, if
// the request does not say it.
func (a *Admin) newcomer(id, addr string) (cluster.Member, error) {
	m := cluster.Member{ID: id, RaftAddr: addr}
	if id == "" {
		return m, neon.Errorf(neon.BadRequest, "a member has an id")
	}
	for _, have := range a.o.Cluster.Members() {
		if have.ID == id && addr == "" {
			m.RaftAddr = have.RaftAddr
		}
	}
	for _, w := range a.o.Cluster.Applicants() {
		if w.ID == id && m.RaftAddr == "" {
			m.RaftAddr = w.RaftAddr
		}
	}
	if m.RaftAddr == "" {
		return m, reasoned(neon.NotFound, "unknown_member",
			"where is %s? It is not waiting with --join; give its Raft address too, as host:port",
			id)
	}
	if _, _, err := net.SplitHostPort(m.RaftAddr); err != nil {
		return m, neon.Errorf(neon.BadRequest, "the Raft address %q is not host:port", m.RaftAddr)
	}
	return m, nil
}

// added is the answer about a member that was added.
func (a *Admin) added(m cluster.Member) neon.MemberAdded {
	out := neon.MemberAdded{
		ID: m.ID, RaftAddr: m.RaftAddr, Role: neon.RoleLearner, Start: a.startFlags(m),
	}
	voters := 0
	for _, have := range a.o.Cluster.Members() {
		if have.Voter {
			voters++
		}
		if have.ID == m.ID {
			out.Role = role(have)
		}
	}
	if voters%2 == 0 && out.Role != neon.RoleLearner {
		out.Note = fmt.Sprintf("%d voters survive the loss of no more members than %d; "+
			"add another one, or remove one", voters, voters-1)
	}
	return out
}

// startFlags are the flags about the cluster with which a newcomer is started.
func (a *Admin) startFlags(m cluster.Member) []string {
	var join []string
	for _, have := range a.o.Cluster.Members() {
		if have.ID != m.ID {
			join = append(join, have.RaftAddr)
		}
	}
	flags := []string{
		"--server-id", m.ID, "--raft-listen", m.RaftAddr, "--join", strings.Join(join, ","),
	}
	if a.o.TLS {
		flags = append(flags, "--raft-tls-cert", "FILE", "--raft-tls-key", "FILE",
			"--raft-tls-ca", "FILE")
	}
	return flags
}
