// Package decide is how a wish becomes an entry of the log: a decision is made on
// the newest state, proposed, and made again if the log refuses it as stale. Then
// the caller waits until the pageservers have followed.
//
// It also knows the client's request that a context belongs to. What an earlier try of the
// same request has done, through whichever replica, is recognised by the log.
//
// The package keeps no state and knows nothing of what is decided.
package decide
