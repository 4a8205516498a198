package failpoint

import "context"

// Points are the places of a process as the code that passes them sees them. The
// nil Registry are Points that do nothing. Their errors are that of ctx.
type Points interface {
	// Sleep returns after the time set for the place.
	Sleep(ctx context.Context, name string) error

	// Pausable returns when the process may go on.
	Pausable(ctx context.Context, name string) error

	// Armed reports whether something is set for the place.
	Armed(name string) bool

	// Return reports whether to fail at the place, and with which argument.
	Return(ctx context.Context, name string) (arg string, hit bool, err error)
}

// OrNone are p, or Points that do nothing if p is nil.
func OrNone(p Points) Points {
	if p == nil {
		return (*Registry)(nil)
	}
	return p
}

// Fail passes a place at which tests make the caller fail. It returns failure then.
func Fail(ctx context.Context, p Points, name string, failure error) error {
	_, hit, err := p.Return(ctx, name)
	if hit {
		return failure
	}
	return err
}
