// Package testcluster starts whole clusters for tests and demonstrations:
// controllers, simulated pageservers in zones, a compute hook, faults, and checks.
//
//	c := testcluster.Run(t, testcluster.Builder{Controllers: 3, Pageservers: 6, Zones: 3})
//	tenant, err := c.Client().CreateTenant(ctx, req)
//	killed, err := c.KillLeader(ctx)
//	err = c.WaitQuiescent(ctx)
//	err = c.CheckAttachedExactlyOnce(ctx, follower)
//
// There are three modes. InProcess runs the controllers in the test's process with
// real sockets and files. Virtual runs the same code inside a testing/synctest
// bubble, over an in-memory network and in-memory disks, so that hours pass in
// seconds. Processes runs the real binary, which can be killed and frozen for
// real.
//
// Pageservers are always simulated in the test's process; their oracle checks the
// numbered invariants as they go, and in the in-process modes it is told of every
// committed generation before anybody can act on it. The clients of a cluster
// keep a ledger of what was acknowledged, which Ledger.Verify compares with what
// is there.
package testcluster
