package safekeeper

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"quorate/api/neon"
	"quorate/fsm"
)

// server answers every request with the same, and remembers the last one.
func server(t *testing.T, status int, body string) (*Client, *fsm.Safekeeper, *string) {
	var last string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		last = r.Method + " " + r.URL.Path + " " + r.Header.Get("Authorization") + " " + string(b)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(s.Close)
	host, port, err := net.SplitHostPort(strings.TrimPrefix(s.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	n, _ := strconv.ParseUint(port, 10, 16)
	transport := &http.Transport{DisableKeepAlives: true}
	return New(Options{Transport: transport, Heartbeats: transport, Token: func() string { return "tok" }}), &fsm.Safekeeper{
		ID: 7, Host: host, HTTPPort: uint16(n),
	}, &last
}

var ref = neon.TimelineRef{Tenant: neon.TenantID{1}, Timeline: neon.TimelineID{2}}

// TestCallsAreSpelledAsSafekeepersExpect: method, path, token and body of each.
func TestCallsAreSpelledAsSafekeepersExpect(t *testing.T) {
	conf := neon.Membership{
		Generation: 3, Members: neon.List[neon.SafekeeperMember]{{ID: 7, Host: "h", PgPort: 1}},
	}
	const confText = `{"generation":3,"members":[{"id":7,"host":"h","pg_port":1}],"new_members":null}`
	tenant, timeline := ref.Tenant.String(), ref.Timeline.String()
	path := "/v1/tenant/" + tenant + "/timeline/" + timeline
	ctx := t.Context()
	for _, c := range []struct {
		answer, want string
		call         func(*Client, *fsm.Safekeeper) error
	}{
		{`{"timeline_count":4}`, "GET /v1/utilization Bearer tok ", func(c *Client, sk *fsm.Safekeeper) error {
			u, err := c.Utilization(ctx, sk)
			if u.Timelines != 4 {
				t.Errorf("utilization %+v", u)
			}
			return err
		}},
		{`null`, `POST /v1/tenant/timeline Bearer tok {"tenant_id":"` + tenant +
			`","timeline_id":"` + timeline + `","mconf":` + confText +
			`,"pg_version":160000,"system_id":null,"wal_seg_size":null,"start_lsn":"0/8","commit_lsn":null}`,
			func(c *Client, sk *fsm.Safekeeper) error {
				return c.CreateTimeline(ctx, sk, neon.SafekeeperTimelineCreate{
					Tenant: ref.Tenant, Timeline: ref.Timeline, Membership: conf, PgVersion: 160000,
					StartLsn: 8,
				})
			}},
		{`{"safekeeper_host":null}`, `POST /v1/pull_timeline Bearer tok {"tenant_id":"` + tenant +
			`","timeline_id":"` + timeline + `","http_hosts":["http://h:1"],"mconf":` + confText +
			`}`,
			func(c *Client, sk *fsm.Safekeeper) error {
				_, err := c.PullTimeline(ctx, sk, neon.PullTimelineRequest{
					Tenant: ref.Tenant, Timeline: ref.Timeline,
					HTTPHosts: neon.List[string]{"http://h:1"}, Membership: &conf,
				})
				return err
			}},
		{`{"previous_conf":` + confText + `,"current_conf":` + confText +
			`,"last_log_term":5,"flush_lsn":"0/10"}`,
			"PUT " + path + "/membership Bearer tok " + confText,
			func(c *Client, sk *fsm.Safekeeper) error {
				s, err := c.SwitchMembership(ctx, sk, ref, conf)
				if s.LastLogTerm != 5 || s.FlushLsn != 0x10 || s.Current.Generation != 3 {
					t.Errorf("switched to %+v", s)
				}
				return err
			}},
		{
			`{"dir_existed":true}`, "PUT " + path + "/exclude Bearer tok " + confText,
			func(c *Client, sk *fsm.Safekeeper) error {
				return c.ExcludeTimeline(ctx, sk, ref, conf)
			},
		},
		{
			`{"dir_existed":true}`, "DELETE " + path + " Bearer tok ",
			func(c *Client, sk *fsm.Safekeeper) error { return c.DeleteTimeline(ctx, sk, ref) },
		},
		{
			`{}`, "DELETE /v1/tenant/" + tenant + " Bearer tok ",
			func(c *Client, sk *fsm.Safekeeper) error {
				return c.DeleteTenant(ctx, sk, ref.Tenant)
			},
		},
	} {
		client, to, last := server(t, http.StatusOK, c.answer)
		if err := c.call(client, to); err != nil || *last != c.want {
			t.Errorf("%v\n got %s\nwant %s", err, *last, c.want)
		}
	}
}

// TestAnswersOtherThanSuccessAreErrors: with the status and the text, and what is
// no answer is told apart.
func TestAnswersOtherThanSuccessAreErrors(t *testing.T) {
	for body, msg := range map[string]string{
		`{"msg":"newer"}`: "newer", `<html>`: "Conflict", ``: "Conflict",
	} {
		client, to, _ := server(t, http.StatusConflict, body)
		err := client.DeleteTimeline(t.Context(), to, ref)
		var s *StatusError
		if !errors.As(err, &s) || s.HTTPStatus() != http.StatusConflict || s.Msg != msg {
			t.Errorf("%q: %v", body, err)
		}
	}
	client, to, _ := server(t, http.StatusOK, "no JSON")
	if _, err := client.Utilization(t.Context(), to); err == nil {
		t.Error("garbage was understood")
	}
	to.HTTPPort = 1
	var gone *TransportError
	if err := client.DeleteTenant(t.Context(), to, ref.Tenant); !errors.As(err, &gone) {
		t.Errorf("no answer: %v", err)
	}
	client.opts.UseHTTPS = true
	if err := client.DeleteTenant(t.Context(), to, ref.Tenant); !errors.As(err, &gone) {
		t.Errorf("no port for https: %v", err)
	}
}

// TestAnswersThatAreNotWholeAreErrors: also of calls of which only the status matters.
func TestAnswersThatAreNotWholeAreErrors(t *testing.T) {
	client, to, _ := server(t, http.StatusOK, `{}`+strings.Repeat(" ", maxAnswer))
	if err := client.DeleteTenant(t.Context(), to, ref.Tenant); err == nil {
		t.Error("an answer beyond the limit is taken for a whole one")
	}
	if _, err := client.Utilization(t.Context(), to); err == nil {
		t.Error("the head of a long answer is decoded")
	}
	client, to, _ = server(t, http.StatusConflict, strings.Repeat(" ", maxAnswer))
	var s *StatusError
	if err := client.DeleteTenant(t.Context(), to, ref.Tenant); !errors.As(err, &s) {
		t.Errorf("a long refusal: %v", err)
	}
}
