// Package split cuts tenants into more shards, by request and because of their size.
//
// A split is a record in the log. BeginSplit freezes the tenant and names the
// children. The leader has the pageservers split the parents. When every child is
// seen attached in its parent's generation, CommitSplit makes the children the
// tenant, in one entry. When anything is in the way, or another leader follows,
// AbortSplit is recorded, the children are removed, and the parents get new
// generations. Any leader finishes an abort, and removes what is left of the
// parents after a commit.
//
// The package remembers nothing that a later leader needs: what it keeps of a split
// under way is only for the leader that began it. It never decides where a child
// goes; that is the scheduler's.
package split
