package client

import (
	"context"
	"net/http"

	"quorate/api/neon"
)

// Upcalls are the calls that pageservers make.
type Upcalls struct{ c caller }

// ReAttach is the call of a pageserver that has started: it returns the locations
// that it is to have.
func (u Upcalls) ReAttach(
	ctx context.Context, req neon.ReAttachRequest,
) (resp neon.ReAttachResponse, err error) {
	return resp, u.c.Call(ctx, http.MethodPost, "/upcall/v1/re-attach", req, &resp)
}

// Validate is the call of a pageserver that is about to delete objects: it returns
// whether its generations are still the newest.
func (u Upcalls) Validate(
	ctx context.Context, req neon.ValidateRequest,
) (resp neon.ValidateResponse, err error) {
	return resp, u.c.Call(ctx, http.MethodPost, "/upcall/v1/validate", req, &resp)
}
