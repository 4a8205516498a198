package pageserver

import (
	"context"
	"errors"
	"net/http"

	"quorate/fsm"
)

// UpdateFeatureFlags sends the text of a specification of feature flags. Older
// pageservers do not know the call and answer 404. See IsStatus.
func (c *Client) UpdateFeatureFlags(ctx context.Context, node *fsm.Node, spec string) error {
	_, err := c.do(ctx, node, request{
		label: "update_feature_flag_spec", method: http.MethodPost, path: "/v1/feature_flag_spec",
		body: spec, timeout: lookTimeout,
	})
	return err
}

// IsStatus reports whether err is a StatusError with the status.
func IsStatus(err error, status int) bool {
	var s *StatusError
	return errors.As(err, &s) && s.Status == status
}
