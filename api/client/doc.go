// Package client calls the HTTP API of a storage controller: Quorate's, or Neon's
// as far as it has the same routes. The bodies are the types of package neon.
//
// The calls are divided by what they are about:
//
//	c := client.New(client.Options{Address: client.At("http://127.0.0.1:1234")})
//	defer c.Close()
//	tenant, err := c.Tenants().Describe(ctx, id)
//	err = c.Nodes().Drain(ctx, 1)
//
// Every replica of a cluster answers every route, so a client may talk to any of
// them, and with At to several in turn.
//
// # Errors
//
// An answer other than 2xx is a *StatusError. Any other error means that there was
// no whole answer, or none that could be decoded: then the request may have been
// carried out. An answer that breaks off is never taken for a whole one.
//
// # Trying again
//
// A call is one request, unless Options.Retry says that it is to be tried again.
// All tries of a call have the same Idempotency-Key, by which replicas recognise what
// was done already: a call that is tried again is carried out once, also when it
// writes. A caller that calls a method anew wants something new, unless it gives both
// calls the same key (WithIdempotencyKey), also after a restart of its own. Replicas
// remember the last 32,768 changes that were named so.
//
// # Limits
//
// The package knows no deadline of its own: the context of a call, and
// Options.TryTimeout for each of its tries, limit the time. A redirect is an error
// unless Options.FollowRedirects is set: the token stays where it was meant to be.
package client
