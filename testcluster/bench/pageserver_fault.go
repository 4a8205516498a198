package bench

import (
	"fmt"
	"time"

	"quorate/api/neon"
	"quorate/testcluster"
	"quorate/testcluster/simpageserver"
)

// The faults that one pageserver may have for the whole of a measurement. Every tenant has
// a location there, attached or secondary.
const (
	pageserverDead    = "dead"    // its port refuses
	pageserverHanging = "hanging" // it answers heartbeats and nothing else
	pageserverSlow    = "slow"    // it answers everything after slowAnswer
)

const slowAnswer = 300 * time.Millisecond

// faulty is the pageserver with the fault.
const faulty neon.NodeID = 1

// patience keeps a dead pageserver from being given up, so that all events meet it.
const patience = time.Hour

// checkPageserverFault refuses what is no fault.
func checkPageserverFault(kind string) error {
	switch kind {
	case "", pageserverDead, pageserverHanging, pageserverSlow:
		return nil
	}
	return fmt.Errorf("--pageserver-fault %q is none of %s, %s and %s", kind, pageserverDead,
		pageserverHanging, pageserverSlow)
}

// injectPageserverFault makes the first pageserver faulty.
func injectPageserverFault(c *testcluster.Cluster, kind string) {
	n := c.Fleet().Node(faulty)
	switch kind {
	case pageserverDead:
		n.Kill()
	case pageserverHanging:
		var hang []simpageserver.Fault
		for _, route := range []simpageserver.Route{
			simpageserver.RouteLocationPut, simpageserver.RouteLocationGet,
			simpageserver.RouteLocationList,
		} {
			hang = append(hang, simpageserver.Fault{Kind: simpageserver.FaultHang, Route: route})
		}
		n.SetFaults(hang...)
	case pageserverSlow:
		n.SetFaults(simpageserver.Fault{Kind: simpageserver.FaultDelay, Delay: slowAnswer})
	}
}
