// Package handover takes the state over from Neon's existing storage controller, whose state
// is in PostgreSQL, and hands it back.
//
// Plan reads only. CutOver makes the old controller step down, owns its database from then
// on, and writes the state as a snapshot that a cluster is founded from. Each step can be
// repeated: after a crash the same call goes on where it stopped. Abort hands back what no
// cluster was founded from. Export writes our state into such a database.
//
// What keeps numbers apart is in the database: whoever owns it has fenced it, so that nobody
// else can issue a generation there, and every change of owner jumps over all that the one
// before can have issued.
package handover
