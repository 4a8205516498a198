package testcluster

import "quorate/api/neon"

// CutOff lets nothing pass from controller i to the pageservers, nor back on
// connections that it opened; their upcalls still arrive. It replaces what was cut
// off before: without pageservers all can be reached.
func (c *Cluster) CutOff(i int, nodes ...neon.NodeID) error {
	var addresses []string
	for _, id := range nodes {
		addresses = append(addresses, c.fleet.Node(id).Addr())
	}
	return c.replicas[i].blockNodes(addresses...)
}

// ClientFrom is as Client, but asks controller i first.
func (c *Cluster) ClientFrom(i int) *Client {
	urls := append(append([]string(nil), c.urls[i:]...), c.urls[:i]...)
	return c.client(urls...)
}
