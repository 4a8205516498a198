package neon

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Generation numbers the attachments of one shard. It only grows: no number is issued
// twice for one shard.
type Generation uint32

// MaxGeneration is the largest generation that may come from outside: as many numbers
// are left to be issued. Existing controllers keep no larger one.
const MaxGeneration Generation = math.MaxInt32

// Check refuses a number from outside that leaves too few.
func (g Generation) Check() error {
	if g > MaxGeneration {
		return Errorf(BadRequest,
			"Generation %d is too large: at most %d can be taken over, so that enough are left",
			uint32(g), uint32(MaxGeneration))
	}
	return nil
}

// String prints 8 hex digits, as the names of remote objects end.
func (g Generation) String() string { return fmt.Sprintf("%08x", uint32(g)) }

// Lsn is a position in the write-ahead log, in bytes.
type Lsn uint64

// Check refuses the largest position, which stands for no position: nothing can begin or
// follow there.
func (l Lsn) Check() error {
	if l == math.MaxUint64 {
		return Errorf(BadRequest, "LSN %s is no position in a log", l)
	}
	return nil
}

// ParseLsn reads `HI/LO` in hex. White space around it is allowed.
func ParseLsn(s string) (Lsn, error) {
	hi, lo, ok := strings.Cut(strings.TrimSpace(s), "/")
	if !ok {
		return 0, fmt.Errorf("lsn %q: want HI/LO", s)
	}
	h, err := strconv.ParseUint(hi, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("lsn %q: not hexadecimal", s)
	}
	l, err := strconv.ParseUint(lo, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("lsn %q: not hexadecimal", s)
	}
	return Lsn(h<<32 | l), nil
}

// String prints `HI/LO` in upper-case hex without padding.
func (l Lsn) String() string { return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l)) }

// MarshalText is String as bytes.
func (l Lsn) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText is ParseLsn.
func (l *Lsn) UnmarshalText(b []byte) (err error) {
	*l, err = ParseLsn(string(b))
	return err
}
