// Package neon has Neon's own words: identifiers, shards, generations, LSNs,
// durations, the configuration of locations and tenants, and the JSON in which
// pageservers, safekeepers, neon_local, control planes and test suites spell them.
//
// # Shapes
//
// A tenant or a timeline is 32 hex digits. A shard is its tenant and, of a tenant
// that was split, `-NNCC`: number and count in two hex digits each. An LSN is
// `X/X` in hex. A [Duration] is text such as `10m`, and a moment is RFC 3339. Sizes
// are bytes, unless the name of a field says otherwise; a [StripeSize] counts pages
// of 8 KiB.
//
// The body of a request is a type that ends in Request, or is named by its verb; the
// comment of the type has the route. A pointer is nil where the JSON is null or has
// no such field. A [List] or [Table] is never null on the wire.
//
// # Errors
//
// Decoding is strict: a field that must be there and is not, a value out of range,
// and in some bodies an unknown field are errors. Encoding is exact, to the order of
// fields, because the programs at the other end were written against another
// controller. [Error] is a refusal with its class; see [CodeOf].
//
// The package is a leaf: it knows nothing of how the controller works.
package neon
