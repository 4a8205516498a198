package controller

import (
	"context"

	"quorate/api/neon"
)

// hold passes a place at which tests hold a request.
func (d *Deps) hold(ctx context.Context, place string) error {
	if d.Failpoints == nil {
		return nil
	}
	return d.Failpoints.Pausable(ctx, place)
}

// failWith passes a place at which tests make a request fail, with a code.
func (d *Deps) failWith(ctx context.Context, place string, code neon.Code) error {
	if d.Failpoints == nil {
		return nil
	}
	_, hit, err := d.Failpoints.Return(ctx, place)
	if err == nil && hit {
		err = neon.Errorf(code, "failpoint")
	}
	return err
}
