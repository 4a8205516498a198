// Package testcluster starts whole clusters for tests and demonstrations. A cluster
// has controllers, simulated pageservers in zones, a compute hook, faults and checks.
//
//	c := testcluster.Run(t, testcluster.Builder{Controllers: 3, Pageservers: 6, Zones: 3})
//	tenant, err := c.Client().Tenants().Create(ctx, req)
//	killed, err := c.KillLeader(ctx)
//	err = c.WaitQuiescent(ctx)
//	err = c.CheckAttachedExactlyOnce(ctx, follower)
//
// Tests of other modules can use it as well: nothing internal is needed.
//
// There are three modes. InProcess runs the controllers in the test's process with
// real sockets and files. Virtual runs the same code inside a testing/synctest
// bubble, over an in-memory network and in-memory disks, so that hours pass in
// seconds. Processes runs the real program, which can be killed and frozen for real.
// It takes the program from Builder.Binary, from the environment variable
// QUORATE_STORAGE_CONTROLLER, from a build of the module in use, or from PATH.
//
// Pageservers are always simulated in the test's process. Their oracle checks the
// numbered invariants as they go. In the in-process modes it learns of every committed
// generation before anybody can act on it. The clients of a cluster keep a ledger of
// what was acknowledged. Ledger.Verify compares it with what is there.
//
// A cluster may do anything that an operator or a test can do. It knows nothing that
// the controllers do not show, except the replicated state that State returns.
package testcluster
