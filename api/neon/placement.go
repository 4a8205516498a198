package neon

import "fmt"

// PlacementKind says whether a tenant is served, only kept warm, or neither.
type PlacementKind uint8

// The kinds of placement.
const (
	PlaceDetached  PlacementKind = iota // no location anywhere
	PlaceSecondary                      // one secondary location, nothing attached
	PlaceAttached                       // one attached location and Secondaries warm ones
)

// Placement is the placement policy of a tenant. The zero value is Detached.
type Placement struct {
	Kind        PlacementKind
	Secondaries uint32 // wanted secondaries per shard; only with PlaceAttached
}

// Attached returns the policy with n secondaries per shard.
func Attached(n int) Placement { return Placement{Kind: PlaceAttached, Secondaries: uint32(n)} }

// WantedSecondaries returns how many secondary locations each shard should have.
func (p Placement) WantedSecondaries() int {
	switch p.Kind {
	case PlaceAttached:
		return int(p.Secondaries)
	case PlaceSecondary:
		return 1
	}
	return 0
}

// String prints the policy as the command line spells it, e.g. `attached:1`.
func (p Placement) String() string {
	switch p.Kind {
	case PlaceAttached:
		return fmt.Sprintf("attached:%d", p.Secondaries)
	case PlaceSecondary:
		return "secondary"
	}
	return "detached"
}

// MarshalJSON prints {"Attached":n}, "Secondary" or "Detached".
func (p Placement) MarshalJSON() ([]byte, error) {
	switch p.Kind {
	case PlaceAttached:
		return fmt.Appendf(nil, `{"Attached":%d}`, p.Secondaries), nil
	case PlaceSecondary:
		return []byte(`"Secondary"`), nil
	}
	return []byte(`"Detached"`), nil
}

// UnmarshalJSON reads what MarshalJSON prints and nothing else.
func (p *Placement) UnmarshalJSON(b []byte) error {
	if name, err := plainString(b); err == nil {
		switch name {
		case "Secondary":
			*p = Placement{Kind: PlaceSecondary}
			return nil
		case "Detached":
			*p = Placement{}
			return nil
		}
		return fmt.Errorf("unknown placement policy %q", name)
	}
	var v struct {
		Attached uint32 `json:"Attached"`
	}
	if err := onlyObject(b, &v, "Attached"); err != nil {
		return fmt.Errorf("placement policy: %w", err)
	}
	*p = Placement{Kind: PlaceAttached, Secondaries: v.Attached}
	return nil
}
