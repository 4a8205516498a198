package testcluster_test

import (
	"context"
	"encoding/json"
	"strings"

	"quorate/api/client"
	"quorate/api/neon"
	"quorate/testcluster"
)

// branchStory does to timelines what a pageserver can do to one, on two shards
// that move meanwhile.
func branchStory(s *script) {
	two := []neon.ShardID{shardOf(0, 0, 2), shardOf(0, 1, 2)}
	s.create(0, 2, neon.Attached(1))
	s.timeline(0, 0, -1, two...)
	s.timeline(0, 1, 0, two...)
	s.timeline(0, 2, 0, two...)
	s.step("archive")
	s.branchCall("PUT", 1, "archival_config", map[string]string{"state": "Archived"})
	s.wantArchived(1, true)
	s.step("an ancestor that is needed cannot be")
	s.do("refused", func(ctx context.Context, c *testcluster.Client) error {
		err := c.Call(ctx, "PUT", branchPath(0, "archival_config"),
			map[string]string{"state": "Archived"}, nil)
		if err == nil || client.StatusOf(err) == 412 {
			if err == nil {
				s.Error("a timeline with children that are in use was archived")
			}
			return nil
		}
		return err
	})
	s.step("bring back")
	s.branchCall("PUT", 1, "archival_config", map[string]string{"state": "Unarchived"})
	s.wantArchived(1, false)
	s.step("garbage collection")
	s.branchCall("POST", 0, "block_gc", nil)
	s.branchCall("POST", 0, "unblock_gc", nil)
	s.step("lease")
	s.branchCall("POST", 0, "lsn_lease", map[string]string{"lsn": "0/1500000"})
	s.step("detach from the ancestor")
	s.branchCall("PUT", 2, "detach_ancestor", nil)
	s.step("the same again")
	s.branchCall("PUT", 2, "detach_ancestor", nil)
	s.step("rest")
	s.rest()
}

func branchPath(timeline int, action string) string {
	return "/v1/tenant/" + idOf(0).String() + "/timeline/" + timelineOf(timeline).String() + "/" +
		action
}

func (s *script) branchCall(method string, timeline int, action string, body any) {
	s.Helper()
	s.do(action, func(ctx context.Context, c *testcluster.Client) error {
		var out json.RawMessage
		return c.Call(ctx, method, branchPath(timeline, action), body, &out)
	})
}

// wantArchived asks all shards.
func (s *script) wantArchived(timeline int, want bool) {
	s.Helper()
	s.do("describe", func(ctx context.Context, c *testcluster.Client) error {
		var d struct {
			Shards []struct {
				Archived bool `json:"is_archived"`
			} `json:"shards"`
		}
		err := c.Call(ctx, "GET", "/control"+strings.TrimSuffix(branchPath(timeline, ""), "/"), nil,
			&d)
		if err == nil &&
			(len(d.Shards) != 2 || d.Shards[0].Archived != want || d.Shards[1].Archived != want) {
			s.Errorf("after an acknowledged change of archival the shards say %+v", d)
		}
		return err
	})
}
