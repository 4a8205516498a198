// Package neon has the types of Neon's protocols: ids, shards, generations, LSNs,
// durations, the configuration of locations and tenants, and the bodies of requests
// and answers. Their JSON is the one that pageservers, safekeepers, neon_local, control
// planes and test suites use.
//
// # Shapes
//
// The id of a tenant or of a timeline is 32 hex digits. The id of a shard is that of
// its tenant. When the tenant is sharded, `-NNCC` follows: number and count, in two hex
// digits each. An LSN is `X/X` in hex. A [Duration] is text such as `10m`. A moment is
// RFC 3339. Sizes are bytes, unless the name of a field says otherwise. A [StripeSize]
// counts pages of 8 KiB.
//
// The name of a request's body ends in Request, or it is a verb. The comment of the type
// names the route. A pointer is nil where the JSON is null or has no such field. A [List]
// or a [Table] is never null on the wire.
//
// # Errors
//
// Decoding is strict. A required field that is missing and a value out of range are
// errors. In some bodies an unknown field is one too: their types say so. Encoding is
// exact, down to the order of fields, because the programs at the other end were written
// against another controller. [Error] is a refusal with its class. See [CodeOf].
//
// The package is a leaf. It may not depend on how the controller works.
package neon
