package simpageserver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"quorate/api/neon"
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

func (n *Node) newUpcaller() (u *upcaller, closeIdle func()) {
	u = &upcaller{
		bases: n.opt.Upcalls, token: n.opt.Token, via: n.opt.Dial, timeout: n.opt.UpcallTimeout,
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

// reattach asks the controller, for as long as it takes, what to do with what is
// on disk. False means the process died first.
func (p *process) reattach() bool {
	n := p.node
	if len(n.opt.Upcalls) == 0 {
		return p.with(func(now time.Duration, c *core) {
			n.serving = true
			p.settleIn(now, c, c.own())
		})
	}
	req := neon.ReAttachRequest{Node: n.opt.ID}
	n.mu.Lock()
	empty := n.emptyDisk
	n.mu.Unlock()
	req.EmptyLocalDisk = &empty
	if n.opt.Register {
		req.Register = n.registration()
	}
	u, closeIdle := n.newUpcaller()
	defer closeIdle()
	for try := 0; ; try++ {
		if !p.gate.wait(p.ctx) {
			return false
		}
		var resp neon.ReAttachResponse
		err := u.once(p.ctx, "re-attach", req, &resp)
		if err == nil && p.gate.wait(p.ctx) {
			return p.admit(resp)
		}
		n.log.Debug("re-attach not answered", "err", err, "try", try)
		if !p.sleep(backoff(try)) {
			return false
		}
	}
}

func (p *process) admit(resp neon.ReAttachResponse) bool {
	tenants := make([]reattachTenant, 0, len(resp.Tenants))
	for _, t := range resp.Tenants {
		e := reattachTenant{shard: t.Shard, mode: modeOf(t.Mode), stripe: t.StripeSize}
		if t.Gen != nil {
			e.gen, e.hasGen = *t.Gen, true
		}
		tenants = append(tenants, e)
	}
	return p.with(func(now time.Duration, c *core) {
		p.node.fleet.opt.Oracle.answered(p.index, tenants)
		p.node.emptyDisk, p.node.serving = false, true
		p.settleIn(now, c, tenants)
	})
}

func (p *process) settleIn(now time.Duration, c *core, tenants []reattachTenant) {
	for _, t := range c.reattach(now, tenants) {
		p.node.fleet.opt.Oracle.moved(p.index, t, byReattach)
		if s := c.slots[t.shard]; s != nil && t.to.attached() && s.tenant != nil {
			p.loaded(t.shard, s)
		}
	}
}

func (n *Node) registration() *neon.NodeRegister {
	host, port, err := net.SplitHostPort(n.Addr())
	if err != nil {
		host, port = n.Addr(), "0"
	}
	num, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		num = 0
	}
	r := &neon.NodeRegister{
		ID: n.opt.ID, PgAddr: host, PgPort: n.opt.PgPort, HTTPAddr: host, HTTPPort: uint16(num),
		AZ: n.opt.AZ,
	}
	if r.PgPort == 0 {
		r.PgPort = uint16(64000 + uint64(n.opt.ID)%1000)
	}
	return r
}

// validate asks the controller which lists may be executed.
func (p *process) validate(ctx context.Context, lists []deletionList) ([]validation, error) {
	items := make([]validation, len(lists))
	req := neon.ValidateRequest{Tenants: make(neon.List[neon.ValidateTenant], len(lists))}
	for i, d := range lists {
		items[i] = validation{shard: d.shard, gen: d.gen}
		req.Tenants[i] = neon.ValidateTenant{Shard: d.shard, Gen: d.gen}
	}
	oracle := p.node.fleet.opt.Oracle
	before := oracle.validating(items)
	u, closeIdle := p.node.newUpcaller()
	defer closeIdle()
	var resp neon.ValidateResponse
	if err := u.once(ctx, "validate", req, &resp); err != nil {
		return nil, err
	}
	valid := make(map[neon.ShardID]bool, len(resp.Tenants))
	for _, t := range resp.Tenants {
		valid[t.Shard] = t.Valid
	}
	for i := range items {
		items[i].valid = valid[items[i].shard]
	}
	oracle.validated(p.index, items, before)
	return items, nil
}
