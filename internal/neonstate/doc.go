// Package neonstate converts the rows of the existing storage controller's database into our
// state, and our state into such rows.
//
// What has no counterpart on the other side, what is taken otherwise than it stands, and what
// cannot be right is listed as findings: nothing is dropped silently. The package is pure; it
// neither reads nor writes anything.
package neonstate
