// Package timetravel puts the remote data of tenants back to a moment in the past, by
// request and as a duty.
//
// A time travel is recorded before any pageserver hears of it. While the record is there,
// nothing changes the tenant, and none is created under its id. So nobody is attached to
// data that is being put back, under whichever leader. The request that has recorded it
// ends the record. If it cannot, the leader carries it on, or the next one does.
//
// The package does not take a tenant off pageservers. It waits until it is off.
package timetravel
