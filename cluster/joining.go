package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"quorate/internal/wait"
)

// A server that is started to join a cluster founds none. It tells the members whose
// addresses it was given that it is there, learns from them who the others are, and waits
// for its invitation: an operator adds it. So no server becomes a member just because
// it reaches the raft port.

const (
	// joinPause is the pause between two calls to the members.
	joinPause = time.Second

	// applicationKept is how long a member remembers a server that waits.
	applicationKept = 10 * joinPause

	// contradictionLimit bounds the look at the members when a server starts with state.
	contradictionLimit = time.Second
)

// application is what a server that waits for its invitation says.
type application struct {
	Member
	HTTPAddr string `json:"http_addr,omitempty"`
}

// applicationAnswer is what a member says to it.
type applicationAnswer struct {
	Cluster string   `json:"cluster"`
	Members []Member `json:"members"`
}

// finding is what a server that waits has found out from the members that it was told of.
type finding struct {
	applicationAnswer
	reasons []string // why some of them are of no use
	taken   bool     // a member has the id of this server, and another disk
}

// joining waits for the invitation to a cluster.
type joining struct {
	addrs  []string
	node   *raftNode
	self   *identity
	dialer dialer
	log    *slog.Logger

	reminder reminder
}

// newJoining makes what waits for an invitation. It does nothing without raft addresses.
func newJoining(cfg Config, node *raftNode, self *identity, d dialer) *joining {
	j := &joining{node: node, self: self, dialer: d, log: cfg.Logger.With("server", self.id)}
	if cfg.GossipListen == "" {
		j.addrs = cfg.Join
	}
	return j
}

// run waits until this server is a member, and tells how it gets on.
func (j *joining) run(ctx context.Context) {
	if len(j.addrs) == 0 || !j.node.empty() {
		return
	}
	reported := make(map[string]bool)
	tell := func(text string, args ...any) {
		if !reported[text] {
			reported[text] = true
			j.log.Info(text, append(args, "cluster", j.self.cluster())...)
		}
	}
	for !j.node.isVoter(j.self.id) {
		switch {
		case j.node.isMember(j.self.id):
			tell("is a member now, without a vote until it has caught up")
		case j.self.cluster() != "":
			tell("was invited, and waits for what the cluster has")
		default:
			j.remind(j.apply(ctx))
		}
		if wait.Sleep(ctx, joinPause) != nil {
			return
		}
	}
	tell("is a voter now")
}

// apply tells the members that this server is there.
func (j *joining) apply(ctx context.Context) (f finding) {
	answers := make([]applicationAnswer, len(j.addrs))
	failures := make([]error, len(j.addrs))
	var wg sync.WaitGroup
	for i, addr := range j.addrs {
		wg.Go(func() {
			answers[i], failures[i] = j.ask(ctx, addr)
		})
	}
	wg.Wait()
	for i, addr := range j.addrs {
		switch {
		case failures[i] != nil:
			f.reasons = append(f.reasons, fmt.Sprintf("%s: %v", addr, failures[i]))
			f.taken = f.taken || errors.Is(failures[i], errOtherDisk)
		case answers[i].Cluster == "":
			f.reasons = append(f.reasons, addr+": it is of no cluster itself yet")
		case foreign(f.Cluster, answers[i].Cluster):
			f.reasons = append(f.reasons, fmt.Sprintf("%s is of cluster %s, and others of %s", addr,
				answers[i].Cluster, f.Cluster))
		default:
			f.applicationAnswer = answers[i]
		}
	}
	if f.Cluster != "" {
		j.tellOthers(ctx, f.Members)
	}
	return f
}

// tellOthers tells the members that were not named, the leader among them.
func (j *joining) tellOthers(ctx context.Context, members []Member) {
	named := strings.Join(j.addrs, ",") + ","
	var wg sync.WaitGroup
	for _, m := range members[:min(len(members), maxServers)] {
		if m.ID != j.self.id && !strings.Contains(named, m.RaftAddr+",") {
			wg.Go(func() { _, _ = j.ask(ctx, m.RaftAddr) })
		}
	}
	wg.Wait()
}

var errSelf = errors.New("this server itself")

// ask calls one address.
func (j *joining) ask(ctx context.Context, addr string) (a applicationAnswer, err error) {
	ctx, cancel := context.WithTimeout(ctx, greetingTimeout)
	defer cancel()
	conn, who, err := j.dialer.dial(ctx, addr, tagPeer)
	if err != nil {
		return a, err
	}
	defer func() { _ = conn.Close() }()
	if who.ID == j.self.id {
		return a, errSelf
	}
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	return exchange[applicationAnswer](conn, callJoin, application{
		Member: Member{ID: j.self.id, RaftAddr: j.self.advertise}, HTTPAddr: j.self.httpAddr,
	})
}

// remind says what this server waits for, and what is to be done.
func (j *joining) remind(f finding) {
	text := strings.Join(f.reasons, "; ")
	if !j.reminder.due(fmt.Sprint(f.Cluster, "/", f.taken, "/", text)) {
		return
	}
	switch {
	case f.taken:
		j.log.Warn("cannot join: a member has the id of this server, and another disk", "for", text,
			"way_out", fmt.Sprintf("start this server with another --server-id; if it was that member "+
				"and has lost its disk, have it take its place: storcon_cli cluster replace %s NEW-ID, "+
				"else storcon_cli cluster add NEW-ID", j.self.id))
	case f.Cluster == "":
		j.log.Warn("waiting to join a cluster: no member answers", "for", text, "way_out",
			"start the members, or correct --join, which takes their raft addresses")
	default:
		args := []any{"cluster", f.Cluster, "members", ids(f.Members), "way_out", fmt.Sprintf(
			"storcon_cli cluster add %s %s, or on the leader's machine storage_controller members "+
				"add %s %s", j.self.id, j.self.advertise, j.self.id, j.self.advertise)}
		if text != "" {
			args = append(args, "not_answering", text)
		}
		j.log.Warn("waiting for an invitation to the cluster", args...)
	}
}

// contradiction returns an error if this server has the state of one cluster and was told
// to join another one. If nobody there is known to be of the same one, it warns.
func (j *joining) contradiction(ctx context.Context) error {
	if len(j.addrs) == 0 || j.node.empty() {
		return nil
	}
	for _, s := range j.node.servers() {
		for _, addr := range j.addrs {
			if string(s.Address) == addr {
				return nil
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, contradictionLimit)
	defer cancel()
	for _, addr := range j.addrs {
		conn, who, err := j.dialer.dial(ctx, addr, tagPeer)
		if err == nil {
			_ = conn.Close()
		}
		if who.Cluster != "" && who.Cluster == j.self.cluster() {
			return nil
		}
		if foreign(who.Cluster, j.self.cluster()) {
			return fmt.Errorf("%w: this server has state of cluster %s and is to join %s, of which "+
				"%s at %s is: if its state is the right one, start it without --join; to give it "+
				"up, move the data directory away first",
				ErrClusterMismatch, j.self.cluster(), who.Cluster, who.ID, addr)
		}
	}
	j.log.Warn("has state already: --join is ignored", "because", "no member is at "+
		strings.Join(j.addrs, ", "), "cluster", j.self.cluster(), "way_out",
		"correct --join; to join another cluster and give this state up, move the data "+
			"directory away first")
	return nil
}

// Applicant is a server that waits for its invitation.
type Applicant struct {
	Member
	HTTPAddr string
}

// applicants are the servers that told this one that they wait.
type applicants struct {
	node *raftNode
	self *identity

	mu   sync.Mutex
	seen map[string]time.Time
	who  map[string]Applicant
}

func newApplicants(node *raftNode, self *identity) *applicants {
	return &applicants{
		node: node, self: self, seen: make(map[string]time.Time), who: make(map[string]Applicant),
	}
}

// answer remembers a server that waits, and tells it who is in the cluster.
func (p *applicants) answer(a application) (applicationAnswer, error) {
	if _, _, err := net.SplitHostPort(a.RaftAddr); a.ID == "" || err != nil {
		return applicationAnswer{}, errPeerFrame
	}
	answer := applicationAnswer{Cluster: p.self.cluster()}
	for _, s := range p.node.servers() {
		answer.Members = append(answer.Members,
			Member{ID: string(s.ID), RaftAddr: string(s.Address)})
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forget()
	if _, known := p.who[a.ID]; known || len(p.who) < maxServers {
		p.who[a.ID], p.seen[a.ID] = Applicant(a), time.Now()
	}
	return answer, nil
}

// list returns those who still wait.
func (p *applicants) list() (out []Applicant) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forget()
	for _, a := range p.who {
		if !p.node.isMember(a.ID) {
			out = append(out, a)
		}
	}
	return out
}

func (p *applicants) forget() {
	for id, at := range p.seen {
		if time.Since(at) > applicationKept {
			delete(p.seen, id)
			delete(p.who, id)
		}
	}
}
