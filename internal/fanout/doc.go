// Package fanout carries one request to the pageservers that own the shards of a
// tenant.
//
// What an owner has acknowledged counts only if it is the owner still when all have
// answered: what a superseded location has acknowledged, its successor may never see.
//
// A pageserver that is at the same thing already is waited for, and then asked again. For
// its first caller may have been a leader that has died. Settle has the rule, and
// docs/answers.md has the table of such answers. Beyond that the package makes each call
// once. It does not decide what to do about a failure, and keeps nothing between requests.
package fanout
