package cluster

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
)

// What a server with state was configured with counts for nothing. If it differs, one line
// says so.
func TestFlagsThatContradictTheStateAreSaid(t *testing.T) {
	self := Member{ID: "n0", RaftAddr: "h0:1"}
	for name, tc := range map[string]struct {
		members []Member
		expect  int
		want    []string // parts of the line; none: no line
	}{
		"nothing":       {},
		"the same":      {members: []Member{self}},
		"another's":     {[]Member{self, {"n1", "h1:1"}}, 0, []string{"n1 is no member", "n0=h0:1"}},
		"own address":   {members: []Member{{"n0", "h7:1"}}},
		"without it":    {[]Member{{"n1", "h1:1"}}, 0, []string{"n1 is no", "n0 is a member too"}},
		"expected":      {nil, 3, []string{"3 are expected"}},
		"as many":       {expect: 1},
		"two of a kind": {[]Member{self, {"n2", "h2:1"}}, 2, []string{"n2 is no", "2 are"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := lone(t)
				defer f.stopAll()
				var said strings.Builder
				nd := f.nodes[0]
				nd.node.warnOfIgnored(Config{Members: tc.members, Expect: tc.expect}, nd.self,
					slog.New(slog.NewTextHandler(&said, nil)))
				if len(tc.want) == 0 != (said.Len() == 0) || strings.Count(said.String(), "\n") > 1 {
					t.Errorf("it says %q", said.String())
				}
				for _, part := range tc.want {
					if !strings.Contains(said.String(), part) {
						t.Errorf("%q lacks %q", said.String(), part)
					}
				}
			})
		})
	}
}
