package demo

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"quorate/api/neon"
)

// status is one look at everything.
type status struct {
	members     []member
	nodes       []node
	shards      int // attached somewhere, once
	changing    int // locations between two configurations
	moved       int // of toMove
	toMove      int
	leaderKnown bool
}

type member struct {
	name, url, role string
	applied         uint64
}

type node struct {
	id                neon.NodeID
	zone              string
	availability      neon.NodeAvailability
	running           bool
	attached, changed int
	secondary         int
}

// askTimeout bounds one question to one controller.
const askTimeout = 300 * time.Millisecond

// status looks at the controllers and the pageservers.
func (s *show) status(ctx context.Context) (*status, error) {
	st := &status{members: s.members(ctx)}
	for _, m := range st.members {
		st.leaderKnown = st.leaderKnown || m.role == "leader"
	}
	held, err := s.servers.look(ctx)
	if err != nil {
		return st, err
	}
	for id, before := range *s.origin.Load() {
		st.toMove++
		for _, h := range held {
			if g, ok := h.attached[id]; ok && g > before {
				st.moved++
				break
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	list, err := s.cluster.Client().Nodes().List(ctx)
	if err != nil {
		return st, err
	}
	for _, d := range list {
		h, running := held[d.ID]
		st.nodes = append(st.nodes, node{
			id: d.ID, zone: d.AZ, availability: d.Availability, running: running,
			attached: len(h.attached), changed: h.others, secondary: h.secondary,
		})
		st.shards += len(h.attached)
		st.changing += h.others
	}
	return st, nil
}

func (s *show) members(ctx context.Context) []member {
	out := make([]member, s.cluster.Controllers())
	var wg sync.WaitGroup
	for i := range out {
		out[i] = member{name: fmt.Sprintf("c%d", i+1), url: s.cluster.URL(i), role: "dead"}
		if !s.cluster.Running(i) {
			continue
		}
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, askTimeout)
			defer cancel()
			m, err := s.cluster.ClientOf(i).Cluster().Members(ctx)
			switch {
			case err != nil:
				out[i].role = "silent"
				return
			case m.Leader == m.Server:
				out[i].role = "leader"
			case m.Leader == "":
				out[i].role = "electing"
			default:
				out[i].role = "follower"
			}
			out[i].applied = m.AppliedIndex
		})
	}
	wg.Wait()
	return out
}

// line is the status in one line, for terminals that cannot redraw.
func (st *status) line() string {
	var b strings.Builder
	for _, m := range st.members {
		fmt.Fprintf(&b, "%s %s  ", m.name, m.role)
	}
	b.WriteString("| attached/secondary")
	for _, n := range st.nodes {
		word := fmt.Sprintf("%d/%d", n.attached, n.secondary)
		if !n.running {
			word = "dead"
		}
		fmt.Fprintf(&b, "  ps%s %s", n.id, word)
	}
	if st.toMove > 0 {
		fmt.Fprintf(&b, " | moved %d of %d", st.moved, st.toMove)
	}
	return b.String()
}

// table is the status in several lines.
func (st *status) table() []string {
	rows := []string{"", bold("  CONTROLLER  ROLE        APPLIED  ADDRESS")}
	for _, m := range st.members {
		rows = append(rows, fmt.Sprintf("  %-10s  %s  %7d  %s", m.name,
			roleColor(m.role, fmt.Sprintf("%-10s", m.role)), m.applied, m.url))
	}
	rows = append(rows, "",
		bold("  PAGESERVER  ZONE         STATE      ATTACHED  SECONDARY  CHANGING"))
	most := 1
	for _, n := range st.nodes {
		most = max(most, n.attached)
	}
	slices.SortFunc(st.nodes, func(a, b node) int { return int(a.id) - int(b.id) })
	for _, n := range st.nodes {
		state := string(n.availability)
		bar := strings.Repeat("■", n.attached*24/most)
		rows = append(rows, fmt.Sprintf("  ps%-8s  %-11s  %s  %8d  %9d  %8d  %s",
			n.id, n.zone, stateColor(state, fmt.Sprintf("%-9s", state)), n.attached, n.secondary,
			n.changed, cyan(bar)))
	}
	if st.toMove > 0 {
		done := st.moved * 40 / st.toMove
		rows = append(rows, "", fmt.Sprintf("  evacuation  %s%s  %d of %d shards",
			green(strings.Repeat("█", done)), strings.Repeat("░", 40-done), st.moved, st.toMove))
	}
	return rows
}

func bold(s string) string  { return "\x1b[1m" + s + "\x1b[0m" }
func cyan(s string) string  { return "\x1b[36m" + s + "\x1b[0m" }
func green(s string) string { return "\x1b[32m" + s + "\x1b[0m" }
func red(s string) string   { return "\x1b[31m" + s + "\x1b[0m" }
func amber(s string) string { return "\x1b[33m" + s + "\x1b[0m" }

func roleColor(role, text string) string {
	switch role {
	case "leader":
		return green(text)
	case "follower":
		return text
	case "dead":
		return red(text)
	}
	return amber(text)
}

func stateColor(state, text string) string {
	switch neon.NodeAvailability(state) {
	case neon.NodeActive:
		return green(text)
	case neon.NodeOffline:
		return red(text)
	}
	return amber(text)
}
