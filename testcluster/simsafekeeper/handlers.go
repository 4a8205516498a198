package simsafekeeper

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"quorate/api/neon"
)

// refusal is an answer other than 200.
type refusal struct {
	status int
	msg    string
}

func refuse(status int, format string, args ...any) *refusal {
	return &refusal{status, fmt.Sprintf(format, args...)}
}

// ServeHTTP answers a controller.
func (n *Node) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return
	}
	if r.Method != http.MethodGet && !n.waitDelay() {
		panic(http.ErrAbortHandler)
	}
	n.fleet.mu.Lock()
	var (
		v any
		f *refusal
	)
	switch {
	case n.server == nil:
		n.fleet.mu.Unlock()
		panic(http.ErrAbortHandler) // it has died meanwhile
	case n.token != "" && r.Header.Get("Authorization") != "Bearer "+n.token:
		f = refuse(http.StatusForbidden, "Forbidden: JWT authentication error")
	default:
		v, f = n.route(r.Method, strings.Split(strings.Trim(r.URL.Path, "/"), "/"), body)
	}
	lost := n.lose > 0 && r.Method != http.MethodGet
	if lost {
		n.lose--
	}
	n.fleet.mu.Unlock()
	if lost {
		panic(http.ErrAbortHandler)
	}
	status := http.StatusOK
	if f != nil {
		status, v = f.status, map[string]string{"msg": f.msg}
	}
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // everything here encodes
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(text)
}

// route finds the handler: v1 utilization | pull_timeline | tenant/timeline |
// tenant/T | tenant/T/timeline/TL[/membership|/exclude].
func (n *Node) route(method string, path []string, body []byte) (any, *refusal) {
	key := method + " " + strings.Join(path, "/")
	switch {
	case key == "GET v1/utilization":
		return neon.SafekeeperUtilization{Timelines: uint64(len(n.timelines))}, nil
	case key == "POST v1/pull_timeline":
		return decoded(body, n.pull)
	case key == "POST v1/tenant/timeline":
		return decoded(body, n.create)
	case len(path) < 3 || path[1] != "tenant":
		return nil, refuse(http.StatusNotFound, "page not found")
	}
	tenant, err := neon.ParseTenantID(path[2])
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "failed to parse tenant_id")
	}
	if len(path) == 3 && method == http.MethodDelete {
		return n.deleteTenant(tenant), nil
	}
	if len(path) < 5 || path[3] != "timeline" {
		return nil, refuse(http.StatusNotFound, "page not found")
	}
	id, err := neon.ParseTimelineID(path[4])
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "failed to parse timeline_id")
	}
	ref := neon.TimelineRef{Tenant: tenant, Timeline: id}
	switch key := method + " " + strings.Join(path[5:], "/"); key {
	case "DELETE ":
		n.fleet.checkDelete(n.id, ref)
		return n.remove(ref, forever), nil
	case "PUT membership":
		return decoded(body,
			func(c neon.Membership) (any, *refusal) { return n.membership(ref, c) })
	case "PUT exclude":
		return decoded(body, func(c neon.Membership) (any, *refusal) { return n.exclude(ref, c) })
	}
	return nil, refuse(http.StatusNotFound, "page not found")
}

func decoded[T any](body []byte, f func(T) (any, *refusal)) (any, *refusal) {
	var v T
	if err := json.Unmarshal(body, &v); err != nil {
		return nil, refuse(http.StatusBadRequest, "Failed to parse json request: %v", err)
	}
	return f(v)
}

// tombstoned reports whether a tombstone keeps a timeline of a generation away.
func (n *Node) tombstoned(ref neon.TimelineRef, g neon.SafekeeperGeneration) bool {
	until, ok := n.tombstones[ref]
	return n.tenants[ref.Tenant] || ok && g <= until
}

func (n *Node) create(req neon.SafekeeperTimelineCreate) (any, *refusal) {
	ref := neon.TimelineRef{Tenant: req.Tenant, Timeline: req.Timeline}
	n.fleet.checkSent(ref, &req.Membership)
	switch {
	case n.timelines[ref] != nil:
		return nil, nil
	case n.tombstoned(ref, req.Membership.Generation):
		return nil, refuse(http.StatusInternalServerError, "timeline %s deleted", ref)
	case !req.Membership.Contains(n.id):
		return nil, refuse(http.StatusBadRequest, "safekeeper %s is not a member of %s", n.id,
			show(req.Membership))
	}
	delete(n.tombstones, ref)
	n.timelines[ref] = &timeline{conf: req.Membership, at: position{lsn: req.StartLsn}}
	return nil, nil
}

func (n *Node) pull(req neon.PullTimelineRequest) (any, *refusal) {
	ref := neon.TimelineRef{Tenant: req.Tenant, Timeline: req.Timeline}
	n.fleet.checkSent(ref, req.Membership)
	if req.Membership != nil && !req.Membership.Contains(n.id) {
		return nil, refuse(http.StatusBadRequest, "safekeeper %s is not a member of %s", n.id,
			show(*req.Membership))
	}
	if t := n.timelines[ref]; t != nil {
		if req.Membership == nil {
			return neon.PullTimelineResponse{}, nil
		}
		if _, f := n.membership(ref, *req.Membership); f != nil {
			return nil, f
		}
		return neon.PullTimelineResponse{}, nil
	}
	best, host, answered := (*timeline)(nil), "", 0
	for _, url := range req.HTTPHosts {
		d := n.fleet.donor(url)
		if d == nil || d.timelines[ref] == nil {
			continue
		}
		answered++
		if t := d.timelines[ref]; best == nil || t.at.compare(best.at) > 0 {
			best, host = t, url
		}
	}
	switch {
	case best == nil || answered < max(1, len(req.HTTPHosts)-1):
		return nil, refuse(http.StatusInternalServerError, "only %d of %d safekeepers answered",
			answered, len(req.HTTPHosts))
	case req.Membership != nil && best.conf.Generation > req.Membership.Generation:
		return nil, refuse(http.StatusConflict, "a donor has generation %d", best.conf.Generation)
	}
	conf := best.conf
	if req.Membership != nil {
		conf = *req.Membership
	}
	if n.tombstoned(ref, conf.Generation) {
		return nil, refuse(http.StatusConflict, "Timeline %s deleted", ref)
	}
	delete(n.tombstones, ref)
	n.timelines[ref] = &timeline{conf: conf, at: best.at}
	return neon.PullTimelineResponse{Host: &host}, nil
}

func (n *Node) membership(ref neon.TimelineRef, conf neon.Membership) (any, *refusal) {
	n.fleet.checkSent(ref, &conf)
	t := n.timelines[ref]
	switch {
	case t == nil:
		return nil, refuse(http.StatusNotFound, "timeline %s not found", ref)
	case !conf.Contains(n.id):
		return nil, refuse(http.StatusForbidden, "safekeeper %s is not a member of %s", n.id,
			show(conf))
	case t.conf.Generation > conf.Generation:
		return nil, refuse(http.StatusConflict, "refused to switch into mconf %s, current %s",
			show(conf), show(t.conf))
	}
	previous := t.conf
	if conf.Generation > previous.Generation {
		t.conf = conf
	}
	return neon.MembershipSwitched{
		Previous: previous, Current: t.conf, LastLogTerm: t.at.term, FlushLsn: t.at.lsn,
	}, nil
}

func (n *Node) exclude(ref neon.TimelineRef, conf neon.Membership) (any, *refusal) {
	n.fleet.checkSent(ref, &conf)
	if conf.Contains(n.id) {
		n.fleet.fail("I29: safekeeper %s was told to exclude itself from %s", n.id, show(conf))
		return nil, refuse(http.StatusForbidden, "safekeeper %s is a member of %s", n.id,
			show(conf))
	}
	if t := n.timelines[ref]; t != nil && t.conf.Generation > conf.Generation {
		return nil, refuse(http.StatusConflict,
			"refused to switch into excluding mconf %s, current %s", show(conf), show(t.conf))
	}
	return n.remove(ref, conf.Generation), nil
}

// remove drops a timeline and leaves a tombstone.
func (n *Node) remove(ref neon.TimelineRef, until neon.SafekeeperGeneration) any {
	_, existed := n.timelines[ref]
	delete(n.timelines, ref)
	n.tombstones[ref] = max(n.tombstones[ref], until)
	return map[string]bool{"dir_existed": existed}
}

func (n *Node) deleteTenant(tenant neon.TenantID) any {
	out := map[neon.TimelineID]any{}
	n.tenants[tenant] = true
	for ref := range n.timelines {
		if ref.Tenant == tenant {
			n.fleet.checkDelete(n.id, ref)
			out[ref.Timeline] = n.remove(ref, forever)
		}
	}
	return out
}
