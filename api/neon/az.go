package neon

import (
	"encoding/json"
	"unique"
)

// AZ is the name of an availability zone. It is interned, one word long, and comparable
// with ==. The zero value means that no zone is known.
type AZ struct{ h unique.Handle[string] }

// MakeAZ interns a zone name; the empty string gives the zero AZ.
func MakeAZ(s string) AZ {
	if s == "" {
		return AZ{}
	}
	return AZ{unique.Make(s)}
}

// String returns the name of the zone. It is empty for the zero AZ.
func (z AZ) String() string {
	if z.h == none {
		return ""
	}
	return z.h.Value()
}

// IsZero reports whether no zone is known.
func (z AZ) IsZero() bool { return z.h == none }

// MarshalJSON prints the name, and null for the zero AZ.
func (z AZ) MarshalJSON() ([]byte, error) {
	if z.IsZero() {
		return []byte("null"), nil
	}
	return json.Marshal(z.String())
}

// UnmarshalJSON reads a string or null.
func (z *AZ) UnmarshalJSON(b []byte) error {
	var s *string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	*z = AZ{}
	if s != nil {
		*z = MakeAZ(*s)
	}
	return nil
}

// MarshalBinary returns the bytes of the name, as the replicated log has them.
func (z AZ) MarshalBinary() ([]byte, error) { return []byte(z.String()), nil }

// UnmarshalBinary is the inverse of MarshalBinary.
func (z *AZ) UnmarshalBinary(b []byte) error {
	*z = MakeAZ(string(b))
	return nil
}
