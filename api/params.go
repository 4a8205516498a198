package api

import (
	"encoding/hex"
	"strconv"
	"strings"
	"time"
	"unicode"

	"quorate/api/neon"
)

func (c *call) tenant() (neon.TenantID, error) {
	id, err := neon.ParseTenantID(c.params.ByName("tenant_id"))
	if err != nil {
		return id, neon.Errorf(neon.BadRequest, "failed to parse tenant_id")
	}
	return id, nil
}

// shard reads a path segment that may be a tenant or a shard.
func (c *call) shard(param string) (neon.ShardID, error) {
	id, err := neon.ParseShardID(c.params.ByName(param))
	if err != nil {
		return id, neon.Errorf(neon.BadRequest, "failed to parse tenant_shard_id")
	}
	return id, nil
}

func (c *call) timeline() (neon.TimelineID, error) {
	id, err := neon.ParseTimelineID(c.params.ByName("timeline_id"))
	if err != nil {
		return id, neon.Errorf(neon.BadRequest, "failed to parse timeline_id")
	}
	return id, nil
}

func (c *call) node() (neon.NodeID, error) {
	id, err := neon.ParseNodeID(c.params.ByName("node_id"))
	if err != nil {
		return id, neon.Errorf(neon.BadRequest, "failed to parse node_id")
	}
	return id, nil
}

func (c *call) safekeeper() (neon.NodeID, error) {
	id, err := neon.ParseNodeID(c.params.ByName("safekeeper_id"))
	if err != nil {
		return id, neon.Errorf(neon.BadRequest, "failed to parse id")
	}
	return id, nil
}

// longestMember bounds the id of a member, in bytes.
const longestMember = 255

// member reads the id of a replica. It is what --server-id says, so any printable text.
func (c *call) member() (string, error) {
	id := c.params.ByName("member_id")
	for _, r := range id {
		if !unicode.IsPrint(r) {
			return "", neon.Errorf(neon.BadRequest, "failed to parse member_id")
		}
	}
	if len(id) > longestMember {
		return "", neon.Errorf(neon.BadRequest, "failed to parse member_id")
	}
	return id, nil
}

// timelineRef reads the tenant and the timeline of the path.
func (c *call) timelineRef() (ref neon.TimelineRef, err error) {
	if ref.Tenant, err = c.tenant(); err == nil {
		ref.Timeline, err = c.timeline()
	}
	return ref, err
}

// query reads one parameter. It may be given twice, with the same value.
func (c *call) query(name string) (value string, ok bool, err error) {
	for pair := range strings.SplitSeq(c.request.URL.RawQuery, "&") {
		key, text, _ := strings.Cut(pair, "=")
		if pair == "" || formText(key) != name {
			continue
		}
		if text = formText(text); ok && text != value {
			return "", false, neon.Errorf(neon.BadRequest, "param %s specified more than once",
				name)
		}
		value, ok = text, true
	}
	return value, ok, nil
}

// formText decodes a key or a value of a query. A percent sign that begins no escape
// stands for itself, as in browsers and existing clients. net/url would refuse the
// query.
func formText(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '+':
			b.WriteByte(' ')
		case '%':
			if code, err := hex.DecodeString(s[i+1 : min(i+3, len(s))]); err == nil &&
				len(code) == 1 {
				c, i = code[0], i+2
			}
			b.WriteByte(c)
		default:
			b.WriteByte(c)
		}
	}
	return strings.ToValidUTF8(b.String(), "\ufffd")
}

// queryBool reads a parameter that is spelled true or false.
func (c *call) queryBool(name string) (value bool, ok bool, err error) {
	text, ok, err := c.query(name)
	if !ok || err != nil {
		return false, ok, err
	}
	switch text {
	case "true":
		return true, true, nil
	case "false":
		return false, true, nil
	}
	return false, true, neon.Errorf(neon.BadRequest,
		"cannot parse query param %s: provided string was not `true` or `false`", name)
}

// queryUint reads an unsigned number.
func (c *call) queryUint(name string) (value uint64, ok bool, err error) {
	text, ok, err := c.query(name)
	if !ok || err != nil {
		return 0, ok, err
	}
	value, perr := strconv.ParseUint(text, 10, 64)
	if perr != nil {
		return 0, true, neon.Errorf(neon.BadRequest, "cannot parse query param %s: not a number",
			name)
	}
	return value, true, nil
}

// queryTime reads a query parameter that must be a time in UTC, and returns it as it
// was spelled.
func (c *call) queryTime(name string) (string, error) {
	text, ok, err := c.query(name)
	switch {
	case err != nil:
		return "", err
	case !ok:
		return "", neon.Errorf(neon.BadRequest, "no %s specified in query parameters", name)
	}
	if _, err := time.Parse("2006-01-02T15:04:05.999999999Z", text); err != nil {
		return "", neon.Errorf(neon.BadRequest, "Invalid time for %s: %s", name, quoteDebug(text))
	}
	return text, nil
}
