package cluster

import "github.com/hashicorp/raft"

// electAlone calls an election at once when this server is the only member:
// there is nobody whose heartbeat could be waited for.
func (c *Cluster) electAlone() {
	servers := c.servers()
	if len(servers) != 1 || string(servers[0].ID) != c.id || servers[0].Suffrage != raft.Voter ||
		!c.health.fit() || c.raft.State() != raft.Follower {
		return
	}
	c.transport.call(&raft.TimeoutNowRequest{RPCHeader: c.rpcHeader()}, c.timeouts.Election)
}
