package cluster

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
)

// A server that is dialed because it applied for membership, or gossiped, is a stranger: it
// ends nobody, whatever id it claims. The member at its address is believed.
func TestAStrangerThatIsDialedEndsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, lead := threeFounders(t)
		defer f.stopAll()
		other := f.nodes[f.followers(lead)[0]]
		cluster := lead.ClusterID()
		answers := func(host string, g greeting) (stop func()) {
			l, err := f.net.Host(host).Listen(host + ":1")
			if err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			wg.Go(func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					if _, _, err := acceptPreamble(c); err == nil {
						_ = writeGreeting(c, []byte{verdictRefused}, g)
					}
					_ = c.Close()
				}
			})
			return func() { _ = l.Close(); wg.Wait() }
		}
		for _, g := range []greeting{
			{ID: "n9", Cluster: cluster, Refusal: "no", GoneBack: true},
			{ID: other.cfg.ID, Cluster: cluster, Refusal: "no", GoneBack: true},
			{ID: "n9", Cluster: "another", Refusal: "no", Ended: cluster},
			{ID: other.cfg.ID, Cluster: "another", Refusal: "no", Ended: cluster},
		} {
			stop := answers("h9", g)
			if _, err := lead.peers.dialAs(t.Context(), g.ID, "h9:1"); err == nil {
				t.Error("a stranger is welcome")
			}
			stop()
			select {
			case err := <-lead.Fatal():
				t.Fatalf("%+v ends a member: %v", g, err)
			default:
			}
		}
		host := other.cfg.RaftListen[:2]
		f.stop(slices.Index(f.nodes, other), false)
		stop := answers(host, greeting{
			ID: other.cfg.ID, Cluster: cluster, Refusal: "no", GoneBack: true,
		})
		defer stop()
		eventuallyVirtual(t, func() bool { return !lead.node.store.Health.Works() })
	})
}
