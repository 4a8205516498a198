// Package deletion deletes tenants and timelines: first on the pageservers, then in
// remote storage or on safekeepers, and last in the log.
//
// A deletion is recorded before any pageserver hears of it. From then on it is
// finished, by the request, by the leader or by the next leader, unless all
// pageservers refuse to delete a timeline. Nothing of a tenant is removed while it may
// be attached anywhere.
package deletion
