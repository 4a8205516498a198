package fsm

import (
	"testing"

	"pgregory.net/rapid"

	"quorate/api/neon"
)

// unmanagedHistory is the part of the golden log about unmanaged shards.
func unmanagedHistory(tenant neon.TenantID, ids []neon.ShardID) []Command {
	config, err := neon.ParseTenantConfig([]byte(`{"gc_horizon":1}`), neon.RejectUnknown)
	if err != nil {
		panic(err)
	}
	found, dropped := neon.Unsharded(neon.TenantID{
		3, 15: 3,
	}), neon.Unsharded(neon.TenantID{4, 15: 4})
	return []Command{
		// the last refused
		SetPreferredAZs{Items: []PreferredAZ{
			{Shard: ids[0], AZ: neon.MakeAZ("zone-b")}, {Shard: ids[1]}, {Shard: found},
		}},
		AttachUnmanaged{Shard: found, Node: 1, Generation: 41, Config: config, At: 1700000000001},
		AttachUnmanaged{Shard: found, Node: 2, Generation: 4100},
		AttachUnmanaged{Shard: found, Node: 77}, // refused
		AttachUnmanaged{Shard: dropped, Node: 3},
		AttachUnmanaged{Shard: dropped},
		SetMetadataHealth{
			Healthy: []neon.ShardID{found}, Unhealthy: []neon.ShardID{ids[1], dropped, ids[1]},
			At: 1700000000002,
		},
		DropTenant{ID: dropped.Tenant},
		// refused: the tenant has two shards
		AttachUnmanaged{Shard: neon.ShardIDs(tenant, 4)[3], Node: 1},
		ReAttach{Node: 2},
	}
}

// unmanagedCommand draws a command of this file's subject.
func (m *machine) unmanagedCommand(t *rapid.T) Command {
	id := m.anyShard(t)
	switch rapid.IntRange(0, 5).Draw(t, "by hand") {
	case 0:
		return DropTenant{ID: id.Tenant}
	case 1:
		return SetPreferredAZs{
			Items: []PreferredAZ{{Shard: id, AZ: drawZone.Draw(t, "zone")}, {Shard: m.anyShard(t)}},
		}
	case 2:
		return SetMetadataHealth{
			Healthy: []neon.ShardID{id}, Unhealthy: []neon.ShardID{m.anyShard(t)},
			At: rapid.Int64().Draw(t, "at"),
		}
	}
	return AttachUnmanaged{
		Shard: id, Node: drawNode.Draw(t, "node"), Generation: drawGeneration.Draw(t, "generation"),
		At: rapid.Int64().Draw(t, "at"),
	}
}

func TestAnUnmanagedShardIsNumberedAndNotMoved(t *testing.T) {
	s := small(t)
	id := neon.ShardIDs(modelTenant(1), 2)[0]
	before, _ := s.Shard(id)
	s, r := must(t, s, AttachUnmanaged{Shard: id, Node: 3})
	sh, _ := s.Shard(id)
	if len(r.Grants) != 1 ||
		r.Grants[0] != (Grant{Shard: id, Generation: before.Generation + 1, Node: 3}) {
		t.Errorf("granted %+v", r.Grants)
	}
	if sh.Attached != 3 || sh.GenNode != 3 || len(sh.Secondary) != 0 || !sh.Unmanaged ||
		sh.OwesNotification() {
		t.Errorf("%+v", sh)
	}
	if tenant, _ := s.Tenant(id.Tenant); tenant.Policy != neon.Attached(0) {
		t.Errorf("placed %v", tenant.Policy)
	}
	restart, r := must(t, s, ReAttach{Node: 3})
	if again, _ := restart.Shard(id); !again.Unmanaged || len(r.ReAttached) != 1 ||
		r.ReAttached[0].Generation != sh.Generation+1 {
		t.Errorf("after a restart of the pageserver: %+v, %+v", again, r.ReAttached)
	}
	moved, _ := must(t, s,
		SetIntents{Intents: []Intent{{Shard: id, Sequence: sh.Sequence, Attached: 1}}})
	if again, _ := moved.Shard(id); again.Unmanaged {
		t.Error("a decision about its place did not take it back")
	}
	deleting, _ := must(t, s, BeginDeleteTenant{ID: id.Tenant})
	if again, _ := deleting.Shard(id); again.Unmanaged {
		t.Error("its deletion did not take it back")
	}
	s, _ = must(t, s, AttachUnmanaged{Shard: id})
	if sh, _ = s.Shard(id); sh.Attached != 0 || sh.GenNode != 0 || !sh.Unmanaged ||
		sh.Generation != before.Generation+1 {
		t.Errorf("taken away: %+v", sh)
	}
}

func TestNumbersGoOnOverADropAndAnUnmanagedAttachment(t *testing.T) {
	s := small(t)
	id := neon.Unsharded(modelTenant(9))
	s, r := must(t, s, AttachUnmanaged{Shard: id, Node: 1, Generation: 7})
	if g := r.Grants[0].Generation; g != 8 {
		t.Errorf("the first is %d, after 7", g)
	}
	s, _ = must(t, s, DropTenant{ID: id.Tenant})
	if _, ok := s.Shard(id); ok {
		t.Error("a dropped tenant is there")
	}
	s, _ = must(t, s, DropTenant{ID: id.Tenant})
	_, r = must(t, s, AttachUnmanaged{Shard: id, Node: 2, Generation: 3})
	if g := r.Grants[0].Generation; g != 9 {
		t.Errorf("after the drop it counts from %d", g)
	}
}

func TestHealthIsOfTheLastJudgement(t *testing.T) {
	s := small(t)
	ids := neon.ShardIDs(modelTenant(1), 2)
	s, _ = must(t, s, SetMetadataHealth{
		Healthy: ids, Unhealthy: []neon.ShardID{ids[1], neon.Unsharded(modelTenant(7))}, At: 5,
	})
	a, _ := s.Shard(ids[0])
	b, _ := s.Shard(ids[1])
	if a.Unhealthy || !b.Unhealthy || a.ScrubbedAt != 5 || b.ScrubbedAt != 5 {
		t.Errorf("%+v %+v", a, b)
	}
	s, _ = must(t, s, SetMetadataHealth{Healthy: ids[1:], At: 6})
	if b, _ = s.Shard(ids[1]); b.Unhealthy || b.ScrubbedAt != 6 {
		t.Errorf("%+v", b)
	}
}
