package safekeeper

import (
	"context"
	"net/http"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
)

// Time limits of one try. A pull has more than the others, because it copies the whole
// log of a timeline. A heartbeat has less, because it is to fail soon.
const (
	probeTimeout = time.Second
	callTimeout  = 10 * time.Second
	pullTimeout  = 5 * time.Minute
)

func timelinePath(id neon.TimelineRef) string {
	return "/v1/tenant/" + id.Tenant.String() + "/timeline/" + id.Timeline.String()
}

// Utilization is the heartbeat. It uses a new connection.
func (c *Client) Utilization(
	ctx context.Context, sk *fsm.Safekeeper,
) (u neon.SafekeeperUtilization, err error) {
	err = c.do(ctx, sk, request{
		label: "utilization", method: http.MethodGet, path: "/v1/utilization",
		timeout: probeTimeout, fresh: true,
	}, &u)
	return u, err
}

// CreateTimeline creates a timeline. One that is there stays as it is.
func (c *Client) CreateTimeline(
	ctx context.Context, sk *fsm.Safekeeper, body neon.SafekeeperTimelineCreate,
) error {
	return c.do(ctx, sk, request{
		label: "create_timeline", method: http.MethodPost, path: "/v1/tenant/timeline", body: body,
		timeout: callTimeout,
	}, nil)
}

// PullTimeline makes the safekeeper copy a timeline from the best of the others. When
// the timeline is there, it only gets the new configuration.
func (c *Client) PullTimeline(
	ctx context.Context, sk *fsm.Safekeeper, body neon.PullTimelineRequest,
) (resp neon.PullTimelineResponse, err error) {
	err = c.do(ctx, sk, request{
		label: "pull_timeline", method: http.MethodPost, path: "/v1/pull_timeline", body: body,
		timeout: pullTimeout,
	}, &resp)
	return resp, err
}

// SwitchMembership gives a member the configuration of a timeline. It is a StatusError of
// 409 when the member has a newer one.
func (c *Client) SwitchMembership(
	ctx context.Context, sk *fsm.Safekeeper, id neon.TimelineRef, conf neon.Membership,
) (resp neon.MembershipSwitched, err error) {
	err = c.do(ctx, sk, request{
		label: "switch_timeline_membership", method: http.MethodPut,
		path: timelinePath(id) + "/membership",
		body: conf, timeout: callTimeout,
	}, &resp)
	return resp, err
}

// ExcludeTimeline makes a safekeeper drop its copy of a timeline. The configuration must
// say that it is not a member. A safekeeper that has a newer configuration refuses.
func (c *Client) ExcludeTimeline(
	ctx context.Context, sk *fsm.Safekeeper, id neon.TimelineRef, conf neon.Membership,
) error {
	return c.do(ctx, sk, request{
		label: "exclude_timeline", method: http.MethodPut, path: timelinePath(id) + "/exclude",
		body: conf, timeout: callTimeout,
	}, nil)
}

// DeleteTimeline drops a timeline with its log in remote storage, whatever its
// configuration. It is only for a timeline that is deleted for good.
func (c *Client) DeleteTimeline(
	ctx context.Context, sk *fsm.Safekeeper, id neon.TimelineRef,
) error {
	return c.do(ctx, sk, request{
		label: "delete_timeline", method: http.MethodDelete, path: timelinePath(id),
		timeout: callTimeout,
	}, nil)
}

// DeleteTenant drops all timelines of a tenant. It is only for one that is deleted for
// good.
func (c *Client) DeleteTenant(ctx context.Context, sk *fsm.Safekeeper, tenant neon.TenantID) error {
	return c.do(ctx, sk, request{
		label: "delete_tenant", method: http.MethodDelete, path: "/v1/tenant/" + tenant.String(),
		timeout: callTimeout,
	}, nil)
}
