package cluster

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// maxAppendBytes bounds the commands of one AppendEntries call. A call must end
// within the transport timeout, the follower's fsync included.
const maxAppendBytes = 4 << 20

var errUnfit = errors.New("this server refuses candidacy while its disk is unhealthy")

// transport is raft's network transport with five changes. Addresses are looked up by
// server id. Large appends are cut. Heartbeats that change the term go through raft's
// main loop. A server whose disk is unhealthy asks for no votes. Calls and answers with
// absurd numbers never reach raft; see plausible.go.
type transport struct {
	*raft.NetworkTransport
	local raft.ServerAddress
	hooks transportHooks
	pace  *pace

	inbox chan raft.RPC
	done  chan struct{}
	wg    sync.WaitGroup
	once  sync.Once
}

// transportHooks are what the transport asks of the rest of the server.
type transportHooks struct {
	resolve  func(raft.ServerID, raft.ServerAddress) raft.ServerAddress
	mayStand func() bool         // reports whether this server may ask for votes
	routine  func(raft.RPC) bool // see raftNode.routineHeartbeat
	heard    func()              // a heartbeat came
	term     func() uint64       // of this server
	refused  func(error)         // a call or an answer was absurd
	ctx      context.Context     // ends when this server closes
	timeout  time.Duration       // after which followers miss heartbeats
}

func newTransport(inner *raft.NetworkTransport, local string, hooks transportHooks) *transport {
	t := &transport{
		NetworkTransport: inner,
		hooks:            hooks,
		pace:             newPace(hooks.timeout),
		local:            raft.ServerAddress(local),
		inbox:            make(chan raft.RPC),
		done:             make(chan struct{}),
	}
	t.wg.Go(t.forward)
	return t
}

func (t *transport) forward() {
	for {
		select {
		case rpc := <-t.NetworkTransport.Consumer():
			if t.plausible(rpc) && !t.deliver(rpc) {
				return
			}
		case <-t.done:
			return
		}
	}
}

// deliver puts a call into raft's main loop. It reports false once the transport is closed.
func (t *transport) deliver(rpc raft.RPC) bool {
	select {
	case t.inbox <- rpc:
		return true
	case <-t.done:
		rpc.Respond(nil, raft.ErrTransportShutdown)
		return false
	}
}

// call delivers a command to this server's own raft and waits for the answer.
// It reports false if there was none within the timeout.
func (t *transport) call(command any, timeout time.Duration) (raft.RPCResponse, bool) {
	answer := make(chan raft.RPCResponse, 1)
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case t.inbox <- raft.RPC{Command: command, RespChan: answer}:
	case <-t.done:
		return raft.RPCResponse{}, false
	case <-timer.C:
		return raft.RPCResponse{}, false
	}
	select {
	case r := <-answer:
		return r, r.Error == nil
	case <-t.done:
		return raft.RPCResponse{}, false
	case <-timer.C:
		return raft.RPCResponse{}, false
	}
}

func (t *transport) Consumer() <-chan raft.RPC     { return t.inbox }
func (t *transport) LocalAddr() raft.ServerAddress { return t.local }

func (t *transport) EncodePeer(_ raft.ServerID, addr raft.ServerAddress) []byte {
	return []byte(addr)
}

// SetHeartbeatHandler keeps the fast path that bypasses the main loop, since a slow disk
// must not hide a living leader. Only heartbeats that change nothing take it. One that
// changes the term or the state off the main loop could leave raft leading a term for
// which it was never elected.
func (t *transport) SetHeartbeatHandler(fast func(raft.RPC)) {
	t.NetworkTransport.SetHeartbeatHandler(func(rpc raft.RPC) {
		t.hooks.heard()
		if t.hooks.routine(rpc) {
			fast(rpc)
		} else if t.plausible(rpc) {
			t.deliver(rpc)
		}
	})
}

// AppendEntries cuts the batch in place. Raft looks at what is left of the batch to see
// how far the follower is, and sends the rest in its next call.
func (t *transport) AppendEntries(
	id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest,
	resp *raft.AppendEntriesResponse,
) error {
	size := 0
	for i, l := range args.Entries {
		if size += len(l.Data); size > maxAppendBytes && i > 0 {
			args.Entries = args.Entries[:i]
			break
		}
	}
	err := t.append(id, target, args, resp)
	return t.answered(err, resp.Term)
}

// append calls a server, which a heartbeat does at the pace of the cluster.
func (t *transport) append(
	id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest,
	resp *raft.AppendEntriesResponse,
) error {
	beat := isHeartbeat(args)
	if beat {
		t.pace.rest(t.hooks.ctx, id)
	} else if len(args.Entries) > 0 {
		t.pace.begins()
	}
	err := t.NetworkTransport.AppendEntries(id, t.hooks.resolve(id, target), args, resp)
	if err == nil && beat {
		t.pace.answered(id)
	}
	return err
}

// isHeartbeat reports whether a call is one of those that only say that there is a leader.
func isHeartbeat(args *raft.AppendEntriesRequest) bool {
	return len(args.Entries) == 0 && args.PrevLogEntry == 0 && args.LeaderCommitIndex == 0
}

func (t *transport) RequestVote(
	id raft.ServerID, target raft.ServerAddress, args *raft.RequestVoteRequest,
	resp *raft.RequestVoteResponse,
) error {
	if !t.hooks.mayStand() {
		return errUnfit
	}
	err := t.NetworkTransport.RequestVote(id, t.hooks.resolve(id, target), args, resp)
	return t.answered(err, resp.Term)
}

func (t *transport) RequestPreVote(
	id raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest,
	resp *raft.RequestPreVoteResponse,
) error {
	if !t.hooks.mayStand() {
		return errUnfit
	}
	err := t.NetworkTransport.RequestPreVote(id, t.hooks.resolve(id, target), args, resp)
	return t.answered(err, resp.Term)
}

func (t *transport) InstallSnapshot(
	id raft.ServerID, target raft.ServerAddress, args *raft.InstallSnapshotRequest,
	resp *raft.InstallSnapshotResponse, data io.Reader,
) error {
	err := t.NetworkTransport.InstallSnapshot(id, t.hooks.resolve(id, target), args, resp, data)
	return t.answered(err, resp.Term)
}

func (t *transport) TimeoutNow(
	id raft.ServerID, target raft.ServerAddress, args *raft.TimeoutNowRequest,
	resp *raft.TimeoutNowResponse,
) error {
	return t.NetworkTransport.TimeoutNow(id, t.hooks.resolve(id, target), args, resp)
}

// Close ends the transport and joins the forwarder. Raft calls it too.
func (t *transport) Close() error {
	var err error
	t.once.Do(func() {
		close(t.done)
		err = t.NetworkTransport.Close()
		t.wg.Wait()
	})
	return err
}
