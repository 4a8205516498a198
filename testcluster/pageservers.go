package testcluster

import (
	"context"
	"fmt"
	"net"
	"time"

	"quorate/api/neon"
	"quorate/testcluster/simpageserver"
)

// pageservers are the simulated pageservers of a cluster.
type pageservers struct {
	fleet       *simpageserver.Fleet
	network     *network
	keys        *keys
	upcalls     []string // base URLs at all controllers
	maintenance time.Duration
	calling     func(what string) // see Builder
}

// newPageservers makes the fleet that a builder describes, without nodes.
func newPageservers(
	b *Builder, oracle *simpageserver.Oracle, n *network, k *keys,
) *pageservers {
	return &pageservers{
		fleet: simpageserver.NewFleet(simpageserver.Options{
			Seed: b.Seed, Oracle: oracle, Logger: b.Logger, Behaviour: b.Behaviour,
			Store: simpageserver.NewStore(b.Store),
		}),
		network: n, keys: k, maintenance: b.Maintenance, calling: b.Calling,
	}
}

// Fleet are the simulated pageservers.
func (p *pageservers) Fleet() *simpageserver.Fleet { return p.fleet }

// Oracle watches the pageservers.
func (p *pageservers) Oracle() *simpageserver.Oracle { return p.fleet.Oracle() }

// KillPageserver ends a pageserver as kill -9 does.
func (p *pageservers) KillPageserver(id neon.NodeID) { p.fleet.Node(id).Kill() }

// AddPageserver adds a pageserver to the fleet without starting it. It registers
// itself when it starts.
func (p *pageservers) AddPageserver(id neon.NodeID, zone neon.AZ) (*simpageserver.Node, error) {
	host := fmt.Sprintf("ps%s", id)
	opt := simpageserver.NodeOptions{
		ID: id, AZ: zone, Token: p.keys.Token("generations_api"),
		Dial: p.network.transport(host), Upcalls: p.upcalls, Register: true,
		Maintenance: p.maintenance, UpcallTimeout: 5 * time.Second, Calling: p.calling,
	}
	if p.network.memory != nil {
		opt.Listen = func() (net.Listener, error) { return p.network.listen(host, "9898", "") }
	}
	if p.keys != nil {
		opt.Authorize = func(token string) bool { return p.keys.allows(token, "pageserverapi") }
	}
	return p.fleet.AddNode(opt)
}

// add adds so many pageservers. Ids begin at 1, zones are dealt in turn.
func (p *pageservers) add(nodes, zones int) error {
	for i := range max(0, nodes) {
		if _, err := p.AddPageserver(neon.NodeID(i+1), Zone(i%zones)); err != nil {
			return err
		}
	}
	return nil
}

func (p *pageservers) start(ctx context.Context) error {
	for _, n := range p.fleet.Nodes() {
		if err := n.Start(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (p *pageservers) addrOf(id neon.NodeID) string { return p.fleet.Node(id).Addr() }

// Zone is the availability zone with a number.
func Zone(i int) neon.AZ { return neon.MakeAZ(fmt.Sprintf("us-east-2%c", 'a'+rune(i))) }
