// Package api is the HTTP surface of the controller: one table of routes with
// their scopes and duties, one path that every request takes, one table from
// errors to answers. It decides nothing about tenants or nodes; it decodes,
// checks who asks, brings the request to the replica that may answer it, and
// prints what internal/controller says.
//
// A request goes through, in this order: request id, authentication, bounded
// reading of the body, the leadership step (answered here, or carried to the
// leader and back), and there metrics, rate limit, readiness and handler. Only the
// replica a client talks to repeats a request, always under the request id it had
// the first time, so that the leader recognises what was done already.
package api
