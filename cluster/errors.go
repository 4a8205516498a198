package cluster

import (
	"errors"

	"quorate/cluster/internal/datadir"
	"quorate/cluster/internal/store"
)

// The errors of this package fall into two kinds. After ErrOutcomeUnknown the
// command may or may not take effect, now or later; after every other error
// nothing happened, and nothing will.
var (
	// ErrNotLeader: this server does not lead, or is handing leadership over.
	ErrNotLeader = errors.New("cluster: not the leader")
	// ErrOutcomeUnknown: the command was submitted and may be committed.
	ErrOutcomeUnknown = errors.New("cluster: outcome unknown")
	// ErrOverloaded: the caller's context ended before the command could be submitted.
	ErrOverloaded = errors.New("cluster: overloaded")
	// ErrTooLarge: the command is larger than MaxCommand.
	ErrTooLarge = errors.New("cluster: command too large")
	// ErrClosed: Close was called.
	ErrClosed = store.ErrClosed

	// ErrLeadershipLost is the cause with which the context of RunWhileLeader is cancelled.
	ErrLeadershipLost = errors.New("cluster: leadership lost")
	// ErrClusterMismatch: the peer, or the data directory, belongs to another cluster.
	ErrClusterMismatch = datadir.ErrClusterMismatch
	// ErrClusterEnded: another cluster was made of a survivor of this one.
	ErrClusterEnded = errors.New("cluster: this cluster has ended")
	// ErrDataDirInUse: another process holds the data directory.
	ErrDataDirInUse = datadir.ErrInUse
	// ErrCorrupt: a file of the data directory cannot be trusted. The text names the file
	// and the way out.
	ErrCorrupt = datadir.ErrCorrupt
	// ErrGoneBack: a disk has less than it had before, as an older copy of it has.
	ErrGoneBack = datadir.ErrGoneBack
	// ErrTooOld is what a Machine wraps when its version is too old for what it is to
	// restore. Nothing is damaged then.
	ErrTooOld = errors.New("cluster: this version is too old for the data")
	// ErrDisk: the disk hangs, is full, or refuses writes.
	ErrDisk = store.ErrDisk
	// ErrPeerUnreachable: no connection to the peer.
	ErrPeerUnreachable = errors.New("cluster: peer unreachable")
	// ErrRefused: a peer turned this server down, or this server a peer, because a
	// member came back with another disk.
	ErrRefused = errors.New("cluster: refused")
	// ErrStale: entries on the disk are not in the state that is to be saved.
	ErrStale = errors.New("cluster: the state here is older than the disk")
	// ErrDiverged: the state of this server is not that of the others; see Status.Diverged.
	ErrDiverged = errors.New("cluster: the state here is not that of the other replicas")
	// ErrFormerMember: this server was a member of another cluster, has lost its disk, and
	// answers nothing.
	ErrFormerMember = errors.New("cluster: this server was a member of another cluster")
	// ErrUnknownMember: no member has this id.
	ErrUnknownMember = errors.New("cluster: unknown member")
	// ErrLastVoter: the only voter cannot be removed.
	ErrLastVoter = errors.New("cluster: the last voter")
	// ErrOtherServer: at the address there is a server with another id.
	ErrOtherServer = errors.New("cluster: another server answers at this address")
	// ErrNotEmpty: a server that is to join has state already.
	ErrNotEmpty = errors.New("cluster: the newcomer's disk is not empty")
	// ErrTooManyMembers: the membership is as large as it can be.
	ErrTooManyMembers = errors.New("cluster: too many members")
	// ErrNoMajority: the change of the membership was refused, since no majority of the
	// new voters answers.
	ErrNoMajority = errors.New("cluster: no live majority")
)
