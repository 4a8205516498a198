//go:build quorate_next

package fsm

import (
	"reflect"

	"quorate/api/neon"
)

// With this tag the program is a version after this one: it knows a command more.
// Tests upgrade a cluster to it.
const laterLevels = 1

var laterCommands = map[Kind]reflect.Type{60000: reflect.TypeFor[SetAllScheduling]()}

// SetAllScheduling sets the scheduling policy of all nodes.
type SetAllScheduling struct {
	Scheduling neon.NodeScheduling `cbor:"1,keyasint"`
}

func (SetAllScheduling) kind() Kind { return 60000 }

// Level is that of the version after this one.
func (SetAllScheduling) Level() uint64 { return firstLevel + laterLevels }

func (c SetAllScheduling) apply(t *txn) Result {
	for _, n := range t.nodes {
		if !n.Tombstone {
			n.Scheduling = c.Scheduling
			t.setNode(n)
		}
	}
	return Result{}
}
