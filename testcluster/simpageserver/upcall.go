package simpageserver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// maxUpcallReply bounds the answer to an upcall; a re-attach of a million shards
// is about 150 MB.
const maxUpcallReply = 512 << 20

// upcaller sends a node's upcalls to whichever controller answers.
type upcaller struct {
	bases   []string
	token   string
	via     http.RoundTripper
	timeout time.Duration
	next    int // the base that answered last
}

func newUpcaller(opt NodeOptions) (u *upcaller, closeIdle func()) {
	u = &upcaller{
		bases: opt.Upcalls, token: opt.Token, via: opt.Dial, timeout: opt.UpcallTimeout,
	}
	if u.timeout == 0 {
		u.timeout = 10 * time.Second
	}
	if u.via != nil {
		return u, func() {}
	}
	own := &http.Transport{}
	u.via = own
	return u, own.CloseIdleConnections
}

// once is a POST.
func (u *upcaller) once(ctx context.Context, name string, in, out any) error {
	return u.send(ctx, upcall{http.MethodPost, name}, in, out)
}

// upcall is what is asked of a controller.
type upcall struct{ method, name string }

// send tries every base in turn, starting with the one that answered last. A GET
// has a body as well.
func (u *upcaller) send(ctx context.Context, what upcall, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("upcall %s: %w", what.name, err)
	}
	var errs []error
	for range u.bases {
		req, err := http.NewRequest(what.method,
			strings.TrimSuffix(u.bases[u.next], "/")+"/"+what.name, bytes.NewReader(body))
		if err == nil {
			err = u.one(ctx, req, out)
		}
		if err == nil {
			return nil
		}
		errs = append(errs, err)
		u.next = (u.next + 1) % len(u.bases)
	}
	return fmt.Errorf("upcall %s: %w", what.name, errors.Join(errs...))
}

func (u *upcaller) one(ctx context.Context, req *http.Request, out any) error {
	ctx, cancel := context.WithTimeout(ctx, u.timeout)
	defer cancel()
	req = req.WithContext(ctx)
	req.Header.Set("Content-Type", "application/json")
	if u.token != "" {
		req.Header.Set("Authorization", "Bearer "+u.token)
	}
	resp, err := u.via.RoundTrip(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxUpcallReply))
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s: status %d: %.200s", req.URL, resp.StatusCode, text)
	}
	return json.Unmarshal(text, out)
}

// backoff is the pause after failed attempt n, counted from 0.
func backoff(n int) time.Duration {
	d := time.Second
	for range n {
		if d = d * 11 / 10; d >= 3*time.Second {
			return 3 * time.Second
		}
	}
	return d
}
