package neonrows

import (
	"context"
	"slices"
	"time"

	"quorate/internal/neondb"
)

// Memory is a database in memory. It does what neondb.Database does, without a schema.
type Memory struct{ Content *neondb.Content }

// Read returns a copy of the rows.
func (m *Memory) Read(context.Context) (*neondb.Content, error) {
	c := *m.Content
	c.Shards = slices.Clone(c.Shards)
	if c.Mark != nil {
		c.Mark = new(*c.Mark)
	}
	return sorted(&c), nil
}

func (m *Memory) jump(by int32) {
	m.Content.Shards = slices.Clone(m.Content.Shards)
	for i := range m.Content.Shards {
		if g := m.Content.Shards[i].Generation; g != nil {
			m.Content.Shards[i].Generation = new(*g + by)
		}
	}
}

// Rehearse is that of neondb.Database.
func (m *Memory) Rehearse(
	ctx context.Context, prior *neondb.Leader, own neondb.Leader,
) error {
	c := *m.Content
	_, err := (&Memory{&c}).Take(ctx, "rehearsal", prior, own)
	return err
}

// Take is that of neondb.Database.
func (m *Memory) Take(
	_ context.Context, id string, prior *neondb.Leader, own neondb.Leader,
) (neondb.Mark, error) {
	c := m.Content
	if c.Mark != nil {
		return neondb.Mark{}, neondb.ErrRaced
	}
	if (prior == nil) != (len(c.Leaders) == 0) || prior != nil && *prior != c.Leaders[0] {
		return neondb.Mark{}, neondb.ErrRaced
	}
	c.Leaders = []neondb.Leader{own}
	c.Mark = &neondb.Mark{ID: id, Kind: neondb.Taken, Prior: prior, Own: own, At: own.StartedAt}
	m.jump(neondb.Jump)
	return *c.Mark, nil
}

// HandOut is that of neondb.Database.
func (m *Memory) HandOut(_ context.Context, id string) error {
	mark := m.Content.Mark
	switch {
	case mark == nil || mark.ID != id:
		return neondb.ErrNotTaken
	case mark.HandedOut != nil:
		return neondb.ErrHandedOut
	}
	mark.HandedOut = new(time.Unix(1_700_000_000, 0))
	return nil
}

// Again is that of neondb.Database.
func (m *Memory) Again(_ context.Context, was, id string) (neondb.Mark, error) {
	mark := m.Content.Mark
	switch {
	case mark == nil:
		return neondb.Mark{}, neondb.ErrNotTaken
	case mark.ID != was || mark.HandedOut == nil:
		return neondb.Mark{}, neondb.ErrRaced
	}
	m.jump(neondb.BackJump)
	mark.ID, mark.HandedOut = id, nil
	return *mark, nil
}

// GiveBack is that of neondb.Database.
func (m *Memory) GiveBack(_ context.Context, handedOut bool) (neondb.Mark, error) {
	c := m.Content
	switch {
	case c.Mark == nil:
		return neondb.Mark{}, neondb.ErrNotTaken
	case c.Mark.HandedOut != nil && !handedOut:
		return neondb.Mark{}, neondb.ErrHandedOut
	}
	mark := *c.Mark
	c.Mark, c.Leaders = nil, nil
	if mark.Prior != nil {
		c.Leaders = []neondb.Leader{*mark.Prior}
	}
	m.jump(neondb.BackJump)
	return mark, nil
}

// Write is that of neondb.Database.
func (m *Memory) Write(_ context.Context, c *neondb.Content, to neondb.Destination) error {
	if m.Content != nil && len(m.Content.Shards)+len(m.Content.Nodes) > 0 &&
		(m.Content.Mark == nil || !to.Overwrite) {
		return neondb.ErrNotEmpty
	}
	next := *c
	next.Mark = to.Copy
	m.Content = sorted(&next)
	return nil
}
