//go:build !quorate_next

package fsm

import "reflect"

// laterLevels counts the levels after the first one.
const laterLevels = 0

// laterCommands are those of the version after this one.
var laterCommands map[Kind]reflect.Type
