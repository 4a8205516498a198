// Package neondb reads and writes the PostgreSQL database in which Neon's existing storage
// controller keeps its state, and takes its leadership there.
//
// It knows the schema as each migration has left it. Tables and columns that an older one
// lacks are read as the later migrations would have filled them. Those of a newer one are
// reported with what is in them.
//
// It knows nothing of our own state, and does not judge what stands in the rows.
package neondb
