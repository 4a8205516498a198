package serve

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// certReload is how often the files are checked when the caller does not say.
const certReload = time.Minute

// certificate is read again when its files have changed, so that a renewed one needs
// no restart.
type certificate struct {
	certFile, keyFile string
	reload            time.Duration
	log               *slog.Logger

	mu      sync.Mutex // guards what follows
	cert    *tls.Certificate
	checked time.Time
	stamp   stamps // of the files behind cert
	failed  bool   // the last check of them
}

func openCertificate(
	certFile, keyFile string, reload time.Duration, log *slog.Logger,
) (*certificate, error) {
	c := &certificate{
		certFile: certFile, keyFile: keyFile, reload: cmp.Or(reload, certReload), log: log,
	}
	return c, c.load()
}

func (c *certificate) current(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	due := time.Since(c.checked) >= c.reload
	c.mu.Unlock()
	if due {
		c.renew()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cert, nil
}

// renew loads the certificate if its files have changed. The two files are replaced
// one after the other, so one check at which they do not fit is no reason to warn.
func (c *certificate) renew() {
	err := c.load()
	c.mu.Lock()
	before := c.failed
	c.failed = err != nil
	c.mu.Unlock()
	level := slog.LevelInfo
	if before {
		level = slog.LevelWarn
	}
	if err != nil {
		c.log.Log(context.Background(), level, "Keeping the old TLS certificate", "err", err)
	}
}

func (c *certificate) load() error {
	stamp, err := stampsOf(c.certFile, c.keyFile)
	c.mu.Lock()
	c.checked = time.Now()
	first := c.cert == nil
	same := !first && stamp == c.stamp
	c.mu.Unlock()
	if err != nil {
		return fmt.Errorf("TLS certificate: %w", err)
	}
	if same {
		return nil
	}
	cert, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("TLS certificate: %w", err)
	}
	if !first {
		c.log.Info("Certificate has been reloaded")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cert, c.stamp = &cert, stamp
	return nil
}

// stamps distinguish one content of the two files from another. A renewed file may
// have an older time than the one it replaces.
type stamps [2]struct{ modified, size int64 }

func stampsOf(cert, key string) (s stamps, err error) {
	for i, f := range []string{cert, key} {
		info, err := os.Stat(f)
		if err != nil {
			return s, err
		}
		s[i].modified, s[i].size = info.ModTime().UnixNano(), info.Size()
	}
	return s, nil
}
