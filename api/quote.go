package api

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// quoteDebug prints s between double quotes the way the Debug form of a string
// does in Rust, which is what clients of the existing controller find in the
// message of a 400.
func quoteDebug(s string) string {
	var b strings.Builder
	b.Grow(len(s) + 2)
	b.WriteByte('"')
	for _, r := range s {
		switch r {
		case '"', '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case '\n':
			b.WriteString(`\n`)
		case '\r':
			b.WriteString(`\r`)
		case '\t':
			b.WriteString(`\t`)
		case 0:
			b.WriteString(`\0`)
		default:
			if r == utf8.RuneError || unicode.IsPrint(r) {
				b.WriteRune(r)
				continue
			}
			b.WriteString(`\u{` + strconv.FormatInt(int64(r), 16) + `}`)
		}
	}
	b.WriteByte('"')
	return b.String()
}
