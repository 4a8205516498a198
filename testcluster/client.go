package testcluster

import (
	"net/http"
	"time"

	"quorate/api/client"
)

// Client is a client.Client that writes down in a ledger what was acknowledged.
//
// With one address, every call is one request. With several, a call that found
// no replica, or was answered 503, is tried again at the next replica until the context
// ends.
type Client struct {
	*client.Client
	ledger *Ledger // may be nil
}

// NewClient makes a client for the given base URLs, with or without a trailing
// slash. A nil transport means one of the client's own; Close releases it.
func NewClient(transport http.RoundTripper, token string, urls ...string) *Client {
	opts := client.Options{Address: client.At(urls...), Token: token, Transport: transport}
	if len(urls) > 1 {
		opts.Retry = retrySoon
	}
	return &Client{Client: client.New(opts)}
}

// WithTryTimeout returns a client that waits at most d for one answer before it asks
// the next replica. It shares the connections and the ledger of c.
func (c *Client) WithTryTimeout(d time.Duration) *Client {
	return &Client{Client: c.Client.WithTryTimeout(d), ledger: c.ledger}
}

// The pauses of retrySoon.
const (
	retryPause = 10 * time.Millisecond
	eagerTries = 50
	latePause  = 250 * time.Millisecond
)

// retrySoon tries again as long as client.RetryUnavailable does, and sooner: a
// failover takes tens of milliseconds. Whatever eagerTries have not helped takes
// longer, and from then on frequent tries would only keep everything busy.
func retrySoon(f client.Failure) (pause time.Duration, again bool) {
	if _, again := client.RetryUnavailable(f); !again {
		return 0, false
	}
	if f.Tries > eagerTries {
		return latePause, true
	}
	return retryPause, true
}
