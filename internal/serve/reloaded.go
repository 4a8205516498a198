package serve

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"
)

// certReload is how often files are checked when the caller does not say.
const certReload = time.Minute

// reloaded is what is read from files, and read again when they have changed, so that a
// renewal needs no restart.
type reloaded[T any] struct {
	what   string // for the log: "TLS certificate"
	files  []string
	read   func() (value T, valid validity, err error)
	reload time.Duration
	log    *slog.Logger

	mu      sync.Mutex // guards what follows
	value   T
	valid   validity
	checked time.Time
	stamps  []stamp // of the files behind value; nil before the first
	failed  bool    // the last check of them
}

// validity is the time of a certificate, or of that of several which expires first.
type validity struct{ from, to time.Time }

func validityOf(c *x509.Certificate) validity { return validity{c.NotBefore, c.NotAfter} }

// open reads the files for the first time.
func (r *reloaded[T]) open() error {
	r.reload = cmp.Or(r.reload, certReload)
	return r.load()
}

// current is the newest value.
func (r *reloaded[T]) current() T {
	r.mu.Lock()
	due := time.Since(r.checked) >= r.reload
	r.mu.Unlock()
	if due {
		r.renew()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.value
}

func (r *reloaded[T]) time() validity {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.valid
}

// renew reads the files if they have changed. Files that belong together are replaced
// one after the other, so one check at which they do not fit is no reason to warn.
func (r *reloaded[T]) renew() {
	err := r.load()
	r.mu.Lock()
	before := r.failed
	r.failed = err != nil
	r.mu.Unlock()
	level := slog.LevelInfo
	if before {
		level = slog.LevelWarn
	}
	if err != nil {
		r.log.Log(context.Background(), level, "Keeping the old "+r.what, "err", err)
	}
}

func (r *reloaded[T]) load() error {
	now, err := stampsOf(r.files)
	r.mu.Lock()
	r.checked = time.Now()
	first := r.stamps == nil
	same := !first && slices.Equal(now, r.stamps)
	r.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%s: %w", r.what, err)
	}
	if same {
		return nil
	}
	value, valid, err := r.read()
	if err != nil {
		return fmt.Errorf("%s: %w", r.what, err)
	}
	if !first {
		r.log.Info("Certificate has been reloaded", "which", r.what, "expires", valid.to)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.value, r.valid, r.stamps = value, valid, now
	return nil
}

// stamp distinguishes one content of a file from another. A renewed file may have an older
// time than the one it replaces.
type stamp struct{ modified, size int64 }

func stampsOf(files []string) ([]stamp, error) {
	stamps := make([]stamp, 0, len(files))
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			return nil, err
		}
		stamps = append(stamps, stamp{info.ModTime().UnixNano(), info.Size()})
	}
	return stamps, nil
}
