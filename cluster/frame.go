package cluster

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// MaxCommand is the largest command in bytes. With 1 MB a commit on three
// servers takes 14 to 36 ms; with 5.5 MB it takes 360 ms, which starves heartbeats.
const MaxCommand = 1 << 20

// maxFrameCommands bounds the commands in one log entry.
const maxFrameCommands = 1024

const (
	frameVersion = 1
	frameHeader  = 1 + 4
)

var errFrame = errors.New("undecodable log entry")

func castagnoli(b []byte) uint32 {
	return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
}

// encodeFrame packs commands into one log entry: a version byte, the CRC-32C of
// what follows, the count, then each command with its length. No commands at
// all is a valid entry: a new leader opens its term with one.
func encodeFrame(commands [][]byte) []byte {
	size := frameHeader + binary.MaxVarintLen32
	for _, c := range commands {
		size += binary.MaxVarintLen32 + len(c)
	}
	b := make([]byte, frameHeader, size)
	b[0] = frameVersion
	b = binary.AppendUvarint(b, uint64(len(commands)))
	for _, c := range commands {
		b = binary.AppendUvarint(b, uint64(len(c)))
		b = append(b, c...)
	}
	binary.BigEndian.PutUint32(b[1:], castagnoli(b[frameHeader:]))
	return b
}

// intactFrame reports whether the checksum of a log entry is right.
func intactFrame(b []byte) bool {
	return len(b) >= frameHeader && b[0] == frameVersion &&
		binary.BigEndian.Uint32(b[1:]) == castagnoli(b[frameHeader:])
}

// decodeFrame returns the commands of a log entry; they alias b.
func decodeFrame(b []byte) ([][]byte, error) {
	if !intactFrame(b) {
		return nil, errFrame
	}
	rest := b[frameHeader:]
	count, n := binary.Uvarint(rest)
	if n <= 0 || count > maxFrameCommands {
		return nil, errFrame
	}
	rest = rest[n:]
	commands := make([][]byte, 0, count)
	for range count {
		size, n := binary.Uvarint(rest)
		if n <= 0 || size > uint64(len(rest)-n) {
			return nil, errFrame
		}
		end := n + int(size)
		commands = append(commands, rest[n:end:end])
		rest = rest[end:]
	}
	if len(rest) != 0 {
		return nil, errFrame
	}
	return commands, nil
}
