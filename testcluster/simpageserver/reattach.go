package simpageserver

import (
	"net"
	"strconv"
	"time"

	"quorate/api/neon"
)

// reattachment asks the controller, when a process starts, what to do with the disk.
type reattachment struct {
	*incarnation
	opt     NodeOptions
	addr    string
	imports *importHandler
}

// run asks the controller, for as long as it takes, what to do with what is
// on disk. False means the process died first.
func (h *reattachment) run() bool {
	if len(h.opt.Upcalls) == 0 {
		return h.with(func(now time.Duration, c *core) {
			h.host.serving = true
			h.apply(now, c, c.own())
		})
	}
	req := neon.ReAttachRequest{Node: h.host.id}
	h.host.mu.Lock()
	empty := h.host.emptyDisk
	h.host.mu.Unlock()
	req.EmptyLocalDisk = &empty
	if h.opt.Register {
		req.Register = registration(h.opt, h.addr)
	}
	u, closeIdle := newUpcaller(h.opt)
	defer closeIdle()
	for try := 0; ; try++ {
		if !h.pass() {
			return false
		}
		var resp neon.ReAttachResponse
		err := u.once(h.ctx, "re-attach", req, &resp)
		if err == nil && h.pass() {
			return h.admit(resp)
		}
		h.host.log.Debug("re-attach not answered", "err", err, "try", try)
		if !h.sleep(backoff(try)) {
			return false
		}
	}
}

func (h *reattachment) admit(resp neon.ReAttachResponse) bool {
	tenants := make([]reattachTenant, 0, len(resp.Tenants))
	for _, t := range resp.Tenants {
		e := reattachTenant{shard: t.Shard, mode: modeOf(t.Mode), stripe: t.StripeSize}
		if t.Gen != nil {
			e.gen, e.hasGen = *t.Gen, true
		}
		tenants = append(tenants, e)
	}
	return h.with(func(now time.Duration, c *core) {
		h.host.oracle.answered(h.index, tenants)
		h.host.emptyDisk, h.host.serving = false, true
		h.apply(now, c, tenants)
	})
}

func (h *reattachment) apply(now time.Duration, c *core, tenants []reattachTenant) {
	for _, t := range c.reattach(now, tenants) {
		h.host.oracle.moved(h.index, t, byReattach)
		if s := c.slots[t.shard]; s != nil && t.to.attached() && s.tenant != nil {
			h.imports.loaded(t.shard, s)
		}
	}
}

// registration is what a node says about itself; addr is where it listens.
func registration(opt NodeOptions, addr string) *neon.NodeRegister {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		host, port = addr, "0"
	}
	num, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		num = 0
	}
	r := &neon.NodeRegister{
		ID: opt.ID, PgAddr: host, PgPort: opt.PgPort, HTTPAddr: host, HTTPPort: uint16(num),
		AZ: opt.AZ,
	}
	if r.PgPort == 0 {
		r.PgPort = uint16(64000 + uint64(opt.ID)%1000)
	}
	return r
}
