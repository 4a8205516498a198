package neon

import (
	"encoding/json"
	"unique"
)

// AZ names an availability zone. It is interned, one word long and comparable
// with ==; the zero value means "no zone known".
type AZ struct{ h unique.Handle[string] }

// MakeAZ interns a zone name; the empty string gives the zero AZ.
func MakeAZ(s string) AZ {
	if s == "" {
		return AZ{}
	}
	return AZ{unique.Make(s)}
}

// String is the zone's name, empty for the zero AZ.
func (z AZ) String() string {
	if z.h == none {
		return ""
	}
	return z.h.Value()
}

// IsZero reports whether no zone is known.
func (z AZ) IsZero() bool { return z.h == none }

// MarshalJSON prints the name, null for the zero AZ.
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

// MarshalBinary is the name's bytes, the form kept in the replicated log.
func (z AZ) MarshalBinary() ([]byte, error) { return []byte(z.String()), nil }

// UnmarshalBinary is the inverse of MarshalBinary.
func (z *AZ) UnmarshalBinary(b []byte) error {
	*z = MakeAZ(string(b))
	return nil
}
