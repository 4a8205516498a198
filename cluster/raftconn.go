package cluster

import (
	"errors"
	"fmt"
)

const (
	// maxRaftCall bounds one call of raft but a snapshot, in bytes. The largest has
	// maxAppendBytes of entries and one entry more, which is at most MaxCommand.
	maxRaftCall = 16 << 20
	// maxRaftAnswer bounds one answer.
	maxRaftAnswer = 1 << 20
	// maxSnapshotBytes bounds a snapshot. The state is in memory, so it is smaller.
	maxSnapshotBytes = 64 << 30

	// callInstallSnapshot is the byte with which raft's transport begins that call.
	callInstallSnapshot = 2
)

var errRaftLength = errors.New("a raft call of absurd length")

// raftConn is a connection of raft's transport. The transport decodes whatever comes
// and would take any length; raftConn bounds what is read between two writes, which is
// one call or one answer.
type raftConn struct {
	*conn
	limit int64
	begun bool  // the call's first byte was read; always of a connection that was dialed
	large bool  // the call is a snapshot
	read  int64 // of this call
}

func (c *raftConn) Read(p []byte) (int, error) {
	n, err := c.conn.Read(p)
	if n > 0 && !c.begun {
		c.begun, c.large = true, p[0] == callInstallSnapshot
		if c.large && !c.sameCluster() {
			return 0, fmt.Errorf("%w: a snapshot from a server of unknown cluster",
				ErrClusterMismatch)
		}
	}
	limit := c.limit
	if c.large {
		limit = maxSnapshotBytes
	}
	if c.read += int64(n); c.read > limit {
		return 0, errRaftLength
	}
	return n, err
}

func (c *raftConn) Write(p []byte) (int, error) {
	if c.incoming {
		c.begun, c.large = false, false
	}
	c.read = 0
	return c.conn.Write(p)
}

// sameCluster reports whether both ends are known to be of one cluster. What an
// installed snapshot replaces is gone, so here not knowing is not enough. A server
// that keeps nothing on a disk cannot know, and loses nothing.
func (c *raftConn) sameCluster() bool {
	self := c.owner.hooks.self()
	return self.Disk == "" || self.Cluster != "" && c.who.Cluster == self.Cluster
}
