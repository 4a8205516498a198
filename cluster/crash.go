package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/raft"

	"quorate/internal/wait"
)

// crashDetector elects a new leader at once when the leader's process dies. The proof
// is that the standing connection to the leader breaks, and that its address refuses
// connections twice. A frozen or lost host gives no such proof. For those it is that a
// majority has not heard the leader for a while; see silenceWatch. Raft's timeouts are for
// when neither can be said.
//
// Safety does not depend on the proof, since raft's vote rules stay in force. The rules
// below only save elections: they keep a wrong suspicion, or one that no other server
// shares, from costing an election, and two candidates from splitting the votes.
type crashDetector struct {
	ctx        context.Context
	background *group
	node       *raftNode
	peers      *peers
	health     diskHealth
	log        *slog.Logger
	silence    time.Duration // after which a leader counts as silent; see silenceWatch

	mu        sync.Mutex
	proofs    map[string]proof // by the id of the leader
	elections uint64           // called for
	stood     proof            // when this server last stood, and after which term
}

const (
	// secondLook is the pause between two refused connections.
	secondLook = time.Millisecond
	// proofLimit bounds the search for proof: a dying process closes its sockets
	// one by one, and frees its memory first.
	proofLimit = 200 * time.Millisecond
	// witnessWait bounds one question to the other survivors, agreeLimit the
	// time in which they must have come to the same proof.
	witnessWait = 25 * time.Millisecond
	agreeLimit  = 150 * time.Millisecond
	// probeWait bounds the warming of connections that the vote will use.
	probeWait = 20 * time.Millisecond
	// stagger is how much later than its better each further survivor stands.
	stagger = 30 * time.Millisecond
	// standWait is how long a candidacy against a silent leader waits for raft's main loop:
	// the leader may be heard again meanwhile.
	standWait = 50 * time.Millisecond
	// proofTime is how long a proof counts for a witness who asks.
	proofTime = time.Second
)

// proof is what was seen here of a leader in a term, and when: its death, or its silence.
type proof struct {
	term   uint64
	silent bool
	at     time.Time
}

// witnessAnswer is what one survivor knows of a leader's death.
type witnessAnswer struct {
	ID        string `json:"id"`
	Proved    bool   `json:"proved"` // the same leader, in the same term
	Follower  bool   `json:"follower"`
	Term      uint64 `json:"term"`
	LastTerm  uint64 `json:"last_term"`
	LastIndex uint64 `json:"last_index"`
	Fit       bool   `json:"fit"`
	// Standing: it has begun to stand for election after this term, though its term may not
	// be on its disk yet.
	Standing bool `json:"standing,omitempty"`
}

type witnessQuestion struct {
	Leader string `json:"leader"`
	Term   uint64 `json:"term"`
}

// linkBroken is called when the standing connection to a peer has ended.
func (d *crashDetector) linkBroken(id string) {
	leader, leaderID := d.node.raft().LeaderWithID()
	if string(leaderID) != id {
		return
	}
	suspect := suspicion{
		id: id, addr: d.peers.address(leaderID, leader), term: d.node.raft().CurrentTerm(),
	}
	d.background.Go(func() { d.investigate(d.ctx, suspect) })
}

// count returns how many elections this server called for.
func (d *crashDetector) count() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.elections
}

// suspicion names a leader whose connection broke.
type suspicion struct {
	id     string
	addr   raft.ServerAddress
	term   uint64
	silent bool // its silence is the proof, and not its death
}

// holds reports whether nothing has changed since: this server is a follower of the
// same leader in the same term, and has a vote; and a silent leader was not heard again.
func (d *crashDetector) holds(s suspicion) bool {
	r := d.node.raft()
	if s.silent && time.Since(r.LastContact()) < d.silence {
		return false
	}
	return r.State() == raft.Follower && d.node.leader() == s.id && r.CurrentTerm() == s.term &&
		d.node.isVoter(d.node.id)
}

func (d *crashDetector) investigate(ctx context.Context, s suspicion) {
	if d.proveDeath(ctx, s) {
		d.stand(ctx, s)
	}
}

// stand notes a proof of death or silence, and has an election held if a majority has one.
func (d *crashDetector) stand(ctx context.Context, s suspicion) {
	d.mu.Lock()
	d.proofs[s.id] = proof{term: s.term, silent: s.silent, at: time.Now()}
	d.mu.Unlock()
	if !d.health.Fit() {
		return // still a witness, but no candidate
	}
	rank, agreed := d.poll(ctx, s)
	if !agreed {
		d.log.Info("the leader seems to be gone, but no majority confirms it", "leader", s.id,
			"silent", s.silent)
		return
	}
	d.warm(ctx, s)
	if rank > 0 {
		_ = wait.Sleep(ctx, time.Duration(rank)*stagger)
		if d.overtaken(ctx, s) {
			d.log.Debug("another server stands for election already", "rank", rank)
			return
		}
	}
	d.campaign(s)
}

// proveDeath reports whether the leader's address refuses twice in a row. A
// connection that is accepted but not greeted proves nothing: the kernel accepts
// for a process that is just dying.
func (d *crashDetector) proveDeath(ctx context.Context, s suspicion) bool {
	ctx, cancel := context.WithTimeout(ctx, proofLimit)
	defer cancel()
	for refusals := 0; refusals < 2; _ = wait.Sleep(ctx, secondLook) {
		if ctx.Err() != nil || !d.holds(s) {
			return false
		}
		step, stop := context.WithTimeout(ctx, witnessWait)
		conn, who, err := d.peers.dialer.dial(step, string(s.addr), tagPeer)
		stop()
		switch {
		case err == nil:
			_ = conn.Close()
			return false
		case errors.Is(err, syscall.ECONNREFUSED):
			refusals++
		case who.ID != "": // it answered, if only to turn us down
			return false
		default:
			refusals = 0
		}
	}
	return d.holds(s)
}

// poll asks the other voters until enough of them have proved the same death:
// with us a majority. It returns how many of these have a better claim to stand.
func (d *crashDetector) poll(ctx context.Context, s suspicion) (rank int, agreed bool) {
	ctx, cancel := context.WithTimeout(ctx, agreeLimit)
	defer cancel()
	for ctx.Err() == nil && d.holds(s) {
		mine := d.testify(witnessQuestion{Leader: s.id, Term: s.term})
		witnesses, newer := d.ask(ctx, s)
		if newer {
			return 0, false
		}
		if _, majority := d.node.otherVoters(); 1+len(witnesses) >= majority {
			for _, w := range witnesses {
				if !w.Follower && w.newerThan(mine) {
					return 0, false // it asks for votes itself, and would not give us its own
				}
				if w.Fit && w.betterThan(mine) {
					rank++
				}
			}
			return rank, true
		}
		_ = wait.Sleep(ctx, time.Millisecond)
	}
	return 0, false
}

// ask returns the voters that testify to the death or silence, and whether any of them has
// moved on. One whose time-out for the leader has run out testifies to its silence, but has not
// moved on as long as it asks only whether it would get votes.
func (d *crashDetector) ask(
	ctx context.Context, s suspicion,
) (witnesses []witnessAnswer, newer bool) {
	ctx, cancel := context.WithTimeout(ctx, witnessWait)
	defer cancel()
	question, _ := json.Marshal(witnessQuestion{Leader: s.id, Term: s.term})
	answers := make(chan *witnessAnswer, maxServers)
	asked := 0
	others, _ := d.node.otherVoters()
	for _, v := range others {
		l := d.peers.link(string(v.ID))
		if string(v.ID) == s.id || l == nil {
			continue
		}
		if d.background.Go(func() {
			var a witnessAnswer
			body, err := l.call(ctx, callWitness, question)
			if err != nil || json.Unmarshal(body, &a) != nil {
				answers <- nil
				return
			}
			answers <- &a
		}) {
			asked++
		}
	}
	for ; asked > 0; asked-- {
		a := <-answers // call ends with ctx at the latest
		switch {
		case a == nil:
		case a.Term > s.term || a.Standing || !a.Follower && !s.silent:
			newer = true
		case a.Proved || !a.Follower:
			witnesses = append(witnesses, *a)
		}
	}
	return witnesses, newer
}

// testify answers a witness question from this server's point of view.
func (d *crashDetector) testify(q witnessQuestion) witnessAnswer {
	d.mu.Lock()
	seen, stood := d.proofs[q.Leader], d.stood
	d.mu.Unlock()
	proved := seen.term == q.Term && time.Since(seen.at) < proofTime
	if seen.silent && d.node.raft().LastContact().After(time.Now().Add(-d.silence)) {
		proved = false // it was heard again
	}
	lastIndex, lastTerm := d.node.lastEntry()
	return witnessAnswer{
		ID: d.node.id, Proved: proved,
		Follower: d.node.raft().State() == raft.Follower,
		Term:     d.node.raft().CurrentTerm(), LastTerm: lastTerm, LastIndex: lastIndex,
		Fit:      d.health.Fit(),
		Standing: stood.term == q.Term && time.Since(stood.at) < d.node.timeouts.Election,
	}
}

// newerThan reports whether it has entries that the other one has not.
func (a witnessAnswer) newerThan(b witnessAnswer) bool {
	return a.LastTerm > b.LastTerm || a.LastTerm == b.LastTerm && a.LastIndex > b.LastIndex
}

func (a witnessAnswer) betterThan(b witnessAnswer) bool {
	if a.LastTerm != b.LastTerm {
		return a.LastTerm > b.LastTerm
	}
	if a.LastIndex != b.LastIndex {
		return a.LastIndex > b.LastIndex
	}
	return a.ID < b.ID
}

// warm makes sure that the pooled connections to the other voters work: raft does
// not repeat a vote request that failed on a stale one. A pre-vote for term 0 is
// never granted and changes nothing.
func (d *crashDetector) warm(ctx context.Context, s suspicion) {
	ctx, cancel := context.WithTimeout(ctx, probeWait)
	defer cancel()
	warmed := make(chan struct{}, maxServers)
	asked := 0
	others, majority := d.node.otherVoters()
	for _, v := range others {
		if string(v.ID) == s.id {
			continue
		}
		if d.background.Go(func() {
			for range 4 { // more than the pool holds
				req := &raft.RequestPreVoteRequest{RPCHeader: d.node.header()}
				if d.node.transport.RequestPreVote(v.ID, v.Address, req,
					&raft.RequestPreVoteResponse{}) == nil {
					break
				}
			}
			warmed <- struct{}{}
		}) {
			asked++
		}
	}
	need := majority - 1
	for ; asked > 0 && need > 0; asked, need = asked-1, need-1 {
		select {
		case <-warmed:
		case <-ctx.Done():
			return
		}
	}
}

// overtaken reports whether a server with a better claim stands or has won.
func (d *crashDetector) overtaken(ctx context.Context, s suspicion) bool {
	_, newer := d.ask(ctx, s)
	return newer
}

// campaign makes this server a candidate, if the suspicion still holds.
func (d *crashDetector) campaign(s suspicion) {
	if !d.holds(s) {
		return
	}
	d.mu.Lock()
	d.elections++
	d.stood = proof{term: s.term, at: time.Now()}
	d.mu.Unlock()
	d.log.Info("the leader is gone; standing for election", "leader", s.id, "term", s.term,
		"silent", s.silent)
	patience := d.node.timeouts.Election
	if s.silent {
		patience = standWait
	}
	d.node.campaign(patience)
}
