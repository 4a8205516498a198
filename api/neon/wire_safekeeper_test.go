package neon

import "testing"

// TestSafekeeperWireGolden is TestWireGolden for what is said to and about
// safekeepers.
func TestSafekeeperWireGolden(t *testing.T) {
	tenant, tl := mustShard(t, tenantText).Tenant, mustTimeline(t, timelineText)
	member := SafekeeperMember{ID: 1, Host: "sk", PgPort: 5454}
	stable := Membership{Generation: 1, Members: List[SafekeeperMember]{member}}
	joint := Membership{
		Generation: 2, Members: List[SafekeeperMember]{member},
		NewMembers: &List[SafekeeperMember]{{2, "sk2", 5455}},
	}
	for _, tc := range []struct {
		name string
		v    any
	}{
		{"safekeeper_upsert", SafekeeperUpsert{
			ID: 1, Region: "aws-us-east-2", Version: 5957, Host: "sk", Port: 5454, HTTPPort: 7676,
			AZ: "a",
		}},
		{"safekeeper_upsert_https", SafekeeperUpsert{
			ID: 1, Region: "r", Version: 1, Host: "sk", Port: 5454, HTTPPort: 7676,
			HTTPSPort: new(uint16(7677)), AZ: "a",
		}},
		{"safekeeper_describe", SafekeeperDescribe{
			ID: 1, Region: "r", Version: 5957, Host: "sk", Port: 5454, HTTPPort: 7676, AZ: "a",
			Scheduling: SafekeeperDecomissioned,
		}},
		{"safekeeper_policy", SafekeeperPolicyRequest{SafekeeperActivating}},
		{"membership", stable},
		{"membership_joint", joint},
		{"safekeeper_timeline_create", SafekeeperTimelineCreate{
			Tenant: tenant, Timeline: tl, Membership: stable, PgVersion: 160000,
			StartLsn: 0x169AD58,
		}},
		{"pull_timeline", PullTimelineRequest{
			Tenant: tenant, Timeline: tl, HTTPHosts: List[string]{"http://sk:7676"},
			Membership: &joint,
		}},
		{"pull_timeline_response", PullTimelineResponse{Host: new("http://sk:7676")}},
		{"membership_switched", MembershipSwitched{
			Previous: stable, Current: joint, LastLogTerm: 3, FlushLsn: 0x169AD58,
		}},
		{"safekeeper_utilization", SafekeeperUtilization{7}},
		{
			"timeline_locate",
			TimelineLocate{Generation: 2, Set: List[NodeID]{1}, NewSet: &List[NodeID]{2}},
		},
		{"timeline_locate_stable", TimelineLocate{Generation: 1, Set: List[NodeID]{}}},
		{"timeline_import", TimelineImportRequest{
			Tenant: tenant, Timeline: tl, StartLsn: 8, Set: List[NodeID]{1, 2}, Force: true,
		}},
		{"safekeeper_migrate", SafekeeperMigrateRequest{List[NodeID]{1, 2, 4}}},
		{"notify_safekeepers", NotifySafekeepers{
			Tenant: tenant, Timeline: tl, Generation: 2,
			Safekeepers: List[NotifySafekeeper]{{1, new("sk")}, {2, nil}},
		}},
	} {
		t.Run(tc.name, func(t *testing.T) { golden(t, tc.name, tc.v) })
	}
}
