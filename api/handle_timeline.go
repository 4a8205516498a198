package api

import (
	"net/http"
	"time"

	"quorate/api/neon"
	"quorate/internal/controller"
)

// The deletion of a timeline is asked after once soon, then now and then, and
// left to the client after a while.
const (
	deletionFirst = time.Second
	deletionNext  = 5 * time.Second
	deletionTime  = 25 * time.Second
)

func (s *Server) timelineCreate(c *call) (answer, error) {
	id, err := c.tenant()
	if err != nil {
		return answer{}, err
	}
	var req neon.TimelineCreateRequest
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	resp, err := s.Timelines.Create(c.ctx, id, req)
	return replyWith(http.StatusCreated, resp, err)
}

func (s *Server) timelineDelete(c *call) (answer, error) {
	id, err := c.tenant()
	if err != nil {
		return answer{}, err
	}
	timeline, err := c.timeline()
	if err != nil {
		return answer{}, err
	}
	begun := time.Now()
	for pause := deletionFirst; ; pause = deletionNext {
		stage, err := s.Timelines.Delete(c.ctx, id, timeline)
		if err != nil {
			return answer{}, err
		}
		if stage == controller.DeletionDone {
			return done(nil)
		}
		if time.Since(begun)+pause > deletionTime {
			return answer{status: http.StatusConflict, body: null}, nil
		}
		if !sleep(c.ctx, pause) {
			return answer{}, c.ctx.Err()
		}
	}
}

func (s *Server) passthrough(c *call) (answer, error) {
	id, err := c.shard("tenant_id")
	if err != nil {
		return answer{}, err
	}
	target := c.request.URL.EscapedPath()
	if q := c.request.URL.RawQuery; q != "" {
		target += "?" + q
	}
	a, err := s.Timelines.Passthrough(c.ctx, id, c.request.Method, target)
	if err != nil {
		return answer{}, err
	}
	h := endToEnd(a.Header)
	h.Del("Content-Length") // may have been that of an encoded body
	return answer{status: a.Status, header: h, body: a.Body}, nil
}
