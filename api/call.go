package api

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/gin-gonic/gin"

	"quorate/api/neon"
)

// call is one request on its way to a handler: its body is read, who sends it is
// known. A call may be handled more than once.
type call struct {
	ctx     context.Context
	route   *route
	request *http.Request
	params  gin.Params
	body    []byte
	id      string // the request id

	answered bool // by another replica
}

// hopped tells whether another replica has carried the request here.
func (c *call) hopped() bool { return c.request.Header.Get(hopHeader) != "" }

// answer is what a handler says. Exactly one of body and stream is sent.
type answer struct {
	status int         // 0: 200
	header http.Header // beyond the usual ones
	body   []byte      // JSON, unless header says otherwise
	stream io.Reader   // an answer of the leader too large to hold
	close  func()      // ends stream; nil without one
}

// null is the body of a success with nothing to say: every client decodes it.
var null = []byte("null")

// done is the answer of a success with nothing to say.
func done(err error) (answer, error) {
	return answer{body: null}, err
}

// reply prints v as JSON.
func reply(v any, err error) (answer, error) {
	return replyWith(http.StatusOK, v, err)
}

func replyWith(status int, v any, err error) (answer, error) {
	if err != nil {
		return answer{}, err
	}
	b, err := json.Marshal(v)
	if err != nil {
		return answer{}, neon.Errorf(neon.Internal, "encode answer: %w", err)
	}
	return answer{status: status, body: b}, nil
}

func (c *call) decode(into any) error {
	return neon.DecodeBody(bytes.NewReader(c.body), c.route.body, into)
}

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

// query reads one parameter. It may stand twice if it says the same twice.
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

// formText decodes a key or a value of a query. What is not an escape stands for
// itself, as browsers and existing clients have it; net/url would refuse the query.
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
