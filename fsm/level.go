package fsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"

	"quorate/api/neon"
)

// The levels, and what came with each.
const (
	// firstLevel is that of the first version, and of a state that was never raised.
	firstLevel = 1

	// secondLevel bounds the numbers that come from outside, and leaves what has no
	// number left out of a re-attach. It knows since when nodes are silent, where a
	// shard was before, when operations on nodes got on and how they have ended, which
	// safekeepers are gone, what decisions were based on, what operators insist on, and
	// where they have placed shards. A shard moves only to where it has a secondary.
	secondLevel = 2
)

// ErrNewerState is the error of a version that is older than the level of the cluster.
// It must stop: it would apply differently what it does not know.
var ErrNewerState = errors.New("the cluster has been upgraded beyond this version")

// Leveled is a command that not every version knows, or not with the content it has.
type Leveled interface {
	// Level is the lowest one whose versions know the command as it is.
	Level() uint64
}

// LevelOf is the lowest level whose versions know a command as it is.
func LevelOf(c Command) uint64 {
	if l, ok := c.(Leveled); ok {
		return l.Level()
	}
	return firstLevel
}

// SetLevel raises the agreed level. The leader proposes it when every member runs a
// version that knows it. Older versions cannot join from then on.
type SetLevel struct {
	Level uint64 `cbor:"1,keyasint"`
}

func (SetLevel) kind() Kind { return 59 }

func (c SetLevel) apply(t *txn) Result {
	if c.Level <= t.AgreedLevel() {
		return refuse(neon.Conflict, "the cluster is at feature level %d already", t.AgreedLevel())
	}
	if err := checkLevel(c.Level); err != nil { // cannot happen, see Readable
		return refuse(neon.Internal, "%w", err)
	}
	before := t.KnowsBasis()
	t.level = c.Level
	if !before && t.KnowsBasis() {
		endEarlierMoves(t)
	}
	return Result{}
}

// Admit refuses a command that may not go into the log of a cluster in state s. The
// error says what has to happen first.
func Admit(s *State, c Command) error {
	need, have := LevelOf(c), s.AgreedLevel()
	if need <= have {
		return nil
	}
	return neon.Errorf(neon.PreconditionFailed,
		"%s needs feature level %d and the cluster is at %d: all its members must run a version that knows it",
		reflect.TypeOf(c).Name(), need, have)
}

// Readable refuses an entry of the log that this version must not pass. A command that
// it does not know comes only after a SetLevel beyond its Level. It stops at that one.
func Readable(entry []byte) error {
	if len(entry) < frameHeader || Kind(binary.BigEndian.Uint16(entry[1:])) != (SetLevel{}).kind() {
		return nil
	}
	_, c, err := Decode(entry)
	if err != nil {
		return err
	}
	return checkLevel(c.(SetLevel).Level)
}

func checkLevel(level uint64) error {
	if level > Level {
		return fmt.Errorf(
			"%w: it is at feature level %d, and this version knows up to %d; install the version of the other members",
			ErrNewerState, level, Level)
	}
	return nil
}
