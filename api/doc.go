// Package api is the HTTP surface of the controller. It has one table of routes with
// their scopes and duties (route.go), one path that every request takes (server.go),
// one table from errors to answers (errors.go), and a handler type for each resource,
// in the file of the resource.
//
// A request takes these steps, in this order: request id, authentication, bounded
// reading of the body, and package forward, which has it answered here or by the
// leader. On the replica that answers come the rate limit, the wait for readiness, and
// the handler.
//
// The package may not decide anything about tenants or nodes: a handler decodes and
// checks a request, calls internal/controller, and prints what it returns. It may not
// keep anything between requests that an answer depends on, and it may not read the
// replicated state past internal/controller.
package api
