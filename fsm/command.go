package fsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"

	"github.com/fxamacker/cbor/v2"

	"quorate/api/neon"
)

// Kind numbers a command in the log. Numbers are never reused.
type Kind uint16

// Command is an imperative record in the log. Each type says what it needs to be
// accepted; Apply refuses it otherwise and nothing changes.
type Command interface {
	kind() Kind
	apply(t *txn) Result
}

// Result is what Apply answers to the proposer of a command.
type Result struct {
	// Index is the log index of the command, or, for a recognised retry, of the
	// first time it was applied.
	Index uint64

	// Err is a refusal: nothing changed. Nil for a command that was applied.
	Err *neon.Error

	// Duplicate marks a recognised retry; the rest of the Result is empty.
	Duplicate bool

	// Grants are the generations this command issued.
	Grants []Grant

	// Refused are the items of a batch whose condition did not hold any more.
	// The others were applied.
	Refused []neon.ShardID

	// ReAttached is the answer to a re-attach, by shard id.
	ReAttached []Location

	// LeftOut are the shards that a re-attach could not number: they have no number
	// left. The pageserver drops them.
	LeftOut []neon.ShardID
}

// refuse is the Result of a command that changes nothing.
func refuse(code neon.Code, format string, args ...any) Result {
	return Result{Err: neon.Errorf(code, format, args...)}
}

// refuseBy is the Result of a command that changes nothing because of a neon.Error, and
// the empty one without an error.
func refuseBy(err error) (r Result) {
	errors.As(err, &r.Err)
	return r
}

// Grant is one issued generation: Node alone may use Generation for Shard.
type Grant struct {
	Shard      neon.ShardID
	Generation neon.Generation
	Node       neon.NodeID
}

// Location is one shard in the answer to a re-attach.
type Location struct {
	Shard      neon.ShardID
	Mode       neon.LocationMode
	Generation neon.Generation // only with AttachedSingle
	Stripe     neon.StripeSize
}

// commands maps kinds to types. The order of the numbers is history.
var commands = map[Kind]reflect.Type{
	1:  reflect.TypeFor[SetCluster](),
	2:  reflect.TypeFor[SetLeader](),
	3:  reflect.TypeFor[RegisterNode](),
	4:  reflect.TypeFor[SetNodeScheduling](),
	5:  reflect.TypeFor[SetNodeAvailability](),
	6:  reflect.TypeFor[ReAttach](),
	7:  reflect.TypeFor[CreateTenant](),
	8:  reflect.TypeFor[UpdateTenant](),
	9:  reflect.TypeFor[BeginDeleteTenant](),
	10: reflect.TypeFor[FinishDeleteTenant](),
	11: reflect.TypeFor[SetIntents](),
	12: reflect.TypeFor[IssueGenerations](),
	13: reflect.TypeFor[AckNotifications](),

	20: reflect.TypeFor[UpsertSafekeeper](),
	21: reflect.TypeFor[SetSafekeeperScheduling](),
	22: reflect.TypeFor[CreateTimeline](),
	23: reflect.TypeFor[PullTimeline](),
	24: reflect.TypeFor[FinishSafekeeperOps](),
	25: reflect.TypeFor[DeleteTimeline](),
	26: reflect.TypeFor[ImportTimeline](),
	27: reflect.TypeFor[BeginMembership](),
	28: reflect.TypeFor[EndMembership](),
	29: reflect.TypeFor[AckMembership](),

	40: reflect.TypeFor[BeginNodeOperation](),
	41: reflect.TypeFor[EndNodeOperation](),
	42: reflect.TypeFor[DeleteNode](),
	43: reflect.TypeFor[ForgetTombstone](),
	44: reflect.TypeFor[NoteSilence](),
	45: reflect.TypeFor[NoteProgress](),
	46: reflect.TypeFor[NoteRequest](),
	50: reflect.TypeFor[AttachUnmanaged](),
	51: reflect.TypeFor[DropTenant](),
	52: reflect.TypeFor[SetPreferredAZs](),
	53: reflect.TypeFor[SetMetadataHealth](),
	59: reflect.TypeFor[SetLevel](),
	60: reflect.TypeFor[BeginImport](),
	61: reflect.TypeFor[UpdateImport](),
	62: reflect.TypeFor[FinishImport](),
	63: reflect.TypeFor[BeginDeleteTimeline](),
	64: reflect.TypeFor[CancelDeleteTimeline](),
	54: reflect.TypeFor[NoteRemover](),
	55: reflect.TypeFor[BeginTravel](),
	56: reflect.TypeFor[EndTravel](),
	30: reflect.TypeFor[BeginSplit](),
	31: reflect.TypeFor[CommitSplit](),
	32: reflect.TypeFor[AbortSplit](),
	33: reflect.TypeFor[FinishAbortedSplit](),
	34: reflect.TypeFor[ForgetLeftovers](),
	35: reflect.TypeFor[SettleSafekeeper](),
}

func (SetCluster) kind() Kind          { return 1 }
func (SetLeader) kind() Kind           { return 2 }
func (RegisterNode) kind() Kind        { return 3 }
func (SetNodeScheduling) kind() Kind   { return 4 }
func (SetNodeAvailability) kind() Kind { return 5 }
func (ReAttach) kind() Kind            { return 6 }
func (CreateTenant) kind() Kind        { return 7 }
func (UpdateTenant) kind() Kind        { return 8 }
func (BeginDeleteTenant) kind() Kind   { return 9 }
func (FinishDeleteTenant) kind() Kind  { return 10 }
func (SetIntents) kind() Kind          { return 11 }
func (IssueGenerations) kind() Kind    { return 12 }
func (AckNotifications) kind() Kind    { return 13 }

func (UpsertSafekeeper) kind() Kind        { return 20 }
func (SetSafekeeperScheduling) kind() Kind { return 21 }
func (CreateTimeline) kind() Kind          { return 22 }
func (PullTimeline) kind() Kind            { return 23 }
func (FinishSafekeeperOps) kind() Kind     { return 24 }
func (DeleteTimeline) kind() Kind          { return 25 }
func (ImportTimeline) kind() Kind          { return 26 }
func (BeginMembership) kind() Kind         { return 27 }
func (EndMembership) kind() Kind           { return 28 }
func (AckMembership) kind() Kind           { return 29 }

func (BeginNodeOperation) kind() Kind { return 40 }
func (EndNodeOperation) kind() Kind   { return 41 }
func (DeleteNode) kind() Kind         { return 42 }
func (ForgetTombstone) kind() Kind    { return 43 }
func (NoteSilence) kind() Kind        { return 44 }
func (NoteProgress) kind() Kind       { return 45 }
func (NoteRequest) kind() Kind        { return 46 }
func (AttachUnmanaged) kind() Kind    { return 50 }
func (DropTenant) kind() Kind         { return 51 }
func (SetPreferredAZs) kind() Kind    { return 52 }
func (SetMetadataHealth) kind() Kind  { return 53 }
func (NoteRemover) kind() Kind        { return 54 }
func (BeginTravel) kind() Kind        { return 55 }
func (EndTravel) kind() Kind          { return 56 }
func (BeginSplit) kind() Kind         { return 30 }
func (CommitSplit) kind() Kind        { return 31 }
func (AbortSplit) kind() Kind         { return 32 }
func (FinishAbortedSplit) kind() Kind { return 33 }
func (ForgetLeftovers) kind() Kind    { return 34 }
func (SettleSafekeeper) kind() Kind   { return 35 }

func (BeginImport) kind() Kind          { return 60 }
func (UpdateImport) kind() Kind         { return 61 }
func (FinishImport) kind() Kind         { return 62 }
func (BeginDeleteTimeline) kind() Kind  { return 63 }
func (CancelDeleteTimeline) kind() Kind { return 64 }

// The frame of a command in the log: format, kind, request id, CBOR payload.
const (
	frameFormat = 1
	frameHeader = 1 + 2 + 16
)

// ErrUnknownCommand is met by a replica that is older than the leader. It must
// stop: skipping an entry would make its state another one.
var ErrUnknownCommand = errors.New("log entry holds a command this version does not know")

// decodeMode reads commands. A field that it does not know belongs to a newer
// version, and must not be passed over.
var decodeMode = mode(cbor.ExtraDecErrorUnknownField)

// headMode reads the head of a snapshot, which has the level to judge it by.
var headMode = mode(cbor.ExtraDecErrorNone)

// mode takes any text: what was written has to be readable for ever, and a text that
// a pageserver said, or one that was cut, need not be UTF-8.
func mode(extra cbor.ExtraDecErrorCond) cbor.DecMode {
	m, err := cbor.DecOptions{
		UTF8:              cbor.UTF8DecodeInvalid,
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		MaxArrayElements:  1 << 20,
		MaxMapPairs:       1 << 16,
		MaxNestedLevels:   16,
		IndefLength:       cbor.IndefLengthForbidden,
		ExtraReturnErrors: extra,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return m
}

// Encode frames a command for the log.
func Encode(id RequestID, c Command) ([]byte, error) {
	payload, err := cbor.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", c, err)
	}
	b := make([]byte, frameHeader, frameHeader+len(payload))
	b[0] = frameFormat
	binary.BigEndian.PutUint16(b[1:], uint16(c.kind()))
	copy(b[3:], id[:])
	return append(b, payload...), nil
}

// Decode reads a frame. ErrUnknownCommand tells a newer leader from garbage.
func Decode(b []byte) (RequestID, Command, error) {
	var id RequestID
	if len(b) < frameHeader {
		return id, nil, fmt.Errorf("log entry of %d bytes is no command", len(b))
	}
	kind := Kind(binary.BigEndian.Uint16(b[1:]))
	typ, known := commands[kind]
	if b[0] != frameFormat || !known {
		return id, nil, fmt.Errorf("%w (format %d, kind %d)", ErrUnknownCommand, b[0], kind)
	}
	copy(id[:], b[3:])
	v := reflect.New(typ)
	if err := decodeMode.Unmarshal(b[frameHeader:], v.Interface()); err != nil {
		var newer *cbor.UnknownFieldError
		if errors.As(err, &newer) {
			return id, nil, fmt.Errorf("%w (%s has an unknown field)", ErrUnknownCommand,
				typ.Name())
		}
		return id, nil, fmt.Errorf("decode %s: %w", typ.Name(), err)
	}
	return id, v.Elem().Interface().(Command), nil
}
