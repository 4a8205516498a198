package serve

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"quorate/internal/wait"
)

const (
	// expiryNotice is how long before its end a certificate is a warning, once in
	// expiryReminder. One that lasts for a short time only is one in its last third.
	expiryNotice   = 30 * 24 * time.Hour
	expiryPart     = 3
	expiryReminder = 24 * time.Hour
)

// Certificates are those that a process uses. It looks at their files, and warns before
// one expires: no client can connect after that.
type Certificates struct {
	reload time.Duration
	log    *slog.Logger

	looking sync.Mutex // held while the files are looked at

	mu    sync.Mutex
	known []*watched
}

// watched is one certificate, or some roots.
type watched struct {
	name string
	file interface {
		renew()
		time() validity
	}
	said time.Time // the last warning
}

// Expiry says when a certificate expires, or the first of several roots.
type Expiry struct {
	Name     string // https, peers or peer_roots
	NotAfter time.Time
}

// NewCertificates makes an empty list. The files are looked at every reload; 0 means
// every minute.
func NewCertificates(reload time.Duration, log *slog.Logger) *Certificates {
	if reload <= 0 {
		reload = certReload
	}
	return &Certificates{reload: reload, log: log}
}

// add puts a certificate on the list. A nil list takes none.
func (c *Certificates) add(w *watched) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known = append(c.known, w)
}

// Expiries returns when each certificate expires.
func (c *Certificates) Expiries() []Expiry {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []Expiry
	for _, w := range c.known {
		all = append(all, Expiry{w.name, w.file.time().to})
	}
	return all
}

// Run looks at the files until ctx ends.
func (c *Certificates) Run(ctx context.Context) {
	if c == nil {
		return
	}
	for {
		c.Reload()
		if wait.Sleep(ctx, c.reload) != nil {
			return
		}
	}
}

// Reload reads files that have changed, and warns of what expires.
func (c *Certificates) Reload() {
	if c == nil {
		return
	}
	c.looking.Lock()
	defer c.looking.Unlock()
	c.mu.Lock()
	known := slices.Clone(c.known)
	c.mu.Unlock() // a file system may hang
	for _, w := range known {
		w.file.renew()
		valid := w.file.time()
		left := time.Until(valid.to)
		if left > min(expiryNotice, valid.to.Sub(valid.from)/expiryPart) ||
			!w.said.IsZero() && time.Since(w.said) < expiryReminder {
			continue
		}
		w.said = time.Now()
		text := "A certificate expires soon: replace its file, no restart is needed"
		if left <= 0 {
			text = "A certificate has expired: replace its file, no restart is needed"
		}
		c.log.Warn(text, "certificate", w.name, "expires", valid.to,
			"days_left", int(left/(24*time.Hour)))
	}
}
