package testcluster

import "net/http"

// clients makes the clients of a cluster. All share one ledger.
type clients struct {
	urls      []string // of the controllers, in their order
	transport *http.Transport
	token     string
	ledger    *Ledger
}

// URL is the base URL of a controller's API.
func (c *clients) URL(i int) string { return c.urls[i] }

// Client talks to any controller. If one cannot answer, it asks the next, until the
// context ends.
func (c *clients) Client() *Client { return c.client(c.urls...) }

// ClientOf talks to one controller.
func (c *clients) ClientOf(i int) *Client { return c.client(c.urls[i]) }

// ClientFrom is as Client, but asks controller i first.
func (c *clients) ClientFrom(i int) *Client {
	return c.client(append(append([]string(nil), c.urls[i:]...), c.urls[:i]...)...)
}

func (c *clients) client(urls ...string) *Client {
	client := NewClient(c.transport, c.token, urls...)
	client.ledger = c.ledger
	return client
}

// Ledger is what the clients of this cluster got acknowledged.
func (c *clients) Ledger() *Ledger { return c.ledger }
