package api

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"

	"quorate/api/auth"
	"quorate/api/internal/forward"
	"quorate/api/internal/profile"
	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/controller"
	"quorate/internal/decide"
	"quorate/internal/deletion"
	"quorate/internal/membership"
	"quorate/internal/metrics"
	"quorate/internal/split"
	"quorate/internal/timetravel"
)

// Leadership is what the API must know of the cluster.
type Leadership interface {
	forward.Leadership
	stepper

	// Retired reports whether another instance has taken this replica's place.
	Retired() bool
}

// ErrSteppedDown is the error of Leader on a replica that was asked to step down while
// there is no other one.
var ErrSteppedDown = forward.ErrSteppedDown

// ErrLeaderless is wrapped by the error of a read that was given up since no leader is
// known.
var ErrLeaderless = forward.ErrLeaderless

// Readiness is what the API must know of the start of this replica.
type Readiness interface {
	// Ready reports whether the replica has looked around: a leader after its first round
	// of heartbeats and listings, a follower once it has caught up.
	Ready() bool

	// OutOfService says why the replica must not be asked anything although it runs; ""
	// when it may be. It is not ready then.
	OutOfService() string

	// Serves reports whether WaitReady would return nil at once.
	Serves() bool

	// WaitReady returns nil as soon as requests can be executed, which may be before
	// Ready, ErrLeaderless when no leader is known for too long, and else the error of ctx.
	WaitReady(ctx context.Context) error
}

// Options is what a Server is made of.
type Options struct {
	Tenants     *controller.Tenants
	Shards      *controller.Shards
	Splits      *split.Splitter
	Nodes       *controller.Nodes
	Operations  *controller.Operations
	Upcalls     *controller.Upcalls
	Timelines   *controller.Timelines
	Debug       *controller.Debug
	Safekeepers *controller.Safekeepers

	TenantDeletions   *deletion.Tenants
	TimelineDeletions *deletion.Timelines
	Travels           *timetravel.Travels
	Migrations        *membership.Migrator // of timelines between safekeepers

	// Failpoints lets tests hold this replica; nil: it cannot be held.
	Failpoints Failpoints

	Leadership Leadership
	Readiness  Readiness
	Cluster    func() neon.Cluster // for GET /debug/v1/cluster
	State      func() *fsm.State   // newest local state, for the gauges

	// Members is Cluster with every change that was made before the call, if there is a
	// leader.
	Members    func(ctx context.Context) neon.Cluster
	Membership Membership

	// AskLeader has the leader answer a question by Answer, from a state that holds
	// everything that was acknowledged before the call. The answer is empty where there is
	// none. Nil: nothing is asked in this way.
	AskLeader func(ctx context.Context, question []byte) ([]byte, error)

	// Peers sends requests to other replicas. It must not follow redirects, nor add or
	// remove encodings.
	Peers http.RoundTripper

	Keys       *auth.Keys // of the tokens; nil: everything is allowed
	RatePerSec int        // requests per second and tenant; 0: 10

	// LeaderTimeout bounds how long a request waits while no leader is known; 0: 5 s.
	LeaderTimeout time.Duration

	Registry *prometheus.Registry
	Metrics  *metrics.Recorder // registered with Registry
	Logger   *slog.Logger
}

// defaultRate is the number of requests a second that one tenant gets.
const defaultRate = 10

// Server answers the HTTP API of one replica.
type Server struct {
	engine    *gin.Engine
	auth      *auth.Verifier // nil: no authentication
	bodies    bodyPools
	limiter   *limiter
	forwarder *forward.Forwarder
	readiness Readiness
	metrics   *metrics.Recorder
	logger    *slog.Logger

	isLeader func() bool
	ask      func(ctx context.Context, question []byte) ([]byte, error) // nil: not possible
	tenants  tenantHandler

	unknown  route // of paths and methods that are not served
	fallback *route
}

// New makes a Server. Nothing runs between requests.
func New(o Options) *Server {
	o.RatePerSec = cmp.Or(o.RatePerSec, defaultRate)
	o.LeaderTimeout = cmp.Or(o.LeaderTimeout, defaultLeaderTimeout)
	s := &Server{
		bodies:  newBodyPools(),
		limiter: newLimiter(o.RatePerSec, o.Logger, o.Metrics.RateLimited),
		forwarder: forward.New(forward.Options{
			Leadership: o.Leadership, Ready: o.Readiness.Ready, Peers: o.Peers,
			Count: o.Metrics.Forwarded, LeaderTimeout: o.LeaderTimeout,
		}),
		readiness: o.Readiness, metrics: o.Metrics, logger: o.Logger,
		isLeader: o.Leadership.IsLeader, ask: o.AskLeader,
		unknown: route{
			scope: auth.Any, duty: here, silent: "not a route", body: defaultBody,
			deadline: defaultDeadline, handle: notFound,
		},
	}
	if o.Keys != nil {
		s.auth = auth.NewVerifier(o.Keys)
	}
	metrics.RegisterState(o.Registry, o.State, o.Leadership.IsLeader)
	h := newHandlers(o)
	s.tenants = h.tenants
	s.engine = s.newEngine(routes(h))
	return s
}

func newHandlers(o Options) handlers {
	return handlers{
		probes: probeHandler{
			isLeader: o.Leadership.IsLeader, isReady: o.Readiness.Ready,
			retired: o.Leadership.Retired, outOfService: o.Readiness.OutOfService,
		},
		scrape:      scrapeHandler{newScrape(o.Registry)},
		profiles:    profileHandler{profile.New()},
		upcalls:     upcallHandler{o.Upcalls},
		members:     memberHandler{o.Members, o.Membership},
		nodes:       nodeHandler{o.Nodes},
		operations:  operationHandler{o.Operations},
		safekeepers: safekeeperHandler{o.Safekeepers},
		tenants:     tenantHandler{o.Tenants, o.TenantDeletions, o.Travels},
		health:      healthHandler{o.Tenants},
		shards:      shardHandler{o.Shards, o.Splits, o.Timelines},
		timelines:   timelineHandler{o.Timelines, o.TimelineDeletions, o.Migrations},
		debug:       debugHandler{o.Debug},
		replica: replicaHandler{
			debug: o.Debug, leadership: o.Leadership, cluster: o.Cluster,
			failpoints: o.Failpoints, logger: o.Logger,
		},
	}
}

func (s *Server) newEngine(table []route) *gin.Engine {
	gin.SetMode(gin.ReleaseMode)
	e := gin.New()
	e.RedirectTrailingSlash = false
	e.RedirectFixedPath = false
	e.HandleMethodNotAllowed = false
	for i := range table {
		rt := &table[i]
		if strings.Contains(rt.path, "*") {
			s.fallback = rt
			continue
		}
		h := func(g *gin.Context) { s.serve(rt, g.Writer, g.Request, g.Params) }
		for _, method := range rt.methods() {
			e.Handle(method, rt.path, h)
			e.Handle(method, rt.path+"/", h)
		}
	}
	e.NoRoute(func(g *gin.Context) {
		rt, params := s.other(g.Request)
		s.serve(rt, g.Writer, g.Request, params)
	})
	return e
}

// other finds the row of a request that no exact row matches. A GET about a tenant is
// passed through to a pageserver. Everything else is not served.
func (s *Server) other(r *http.Request) (*route, gin.Params) {
	const prefix = "/v1/tenant/"
	if r.Method != http.MethodGet || !strings.HasPrefix(r.URL.Path, prefix) {
		return &s.unknown, nil
	}
	tenant, rest, _ := strings.Cut(r.URL.Path[len(prefix):], "/")
	if tenant == "" {
		return &s.unknown, nil
	}
	return s.fallback, gin.Params{{Key: "tenant_id", Value: tenant}, {Key: "rest", Value: rest}}
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.engine.ServeHTTP(w, r) }

// serve is the path of every request.
func (s *Server) serve(rt *route, w http.ResponseWriter, r *http.Request, params gin.Params) {
	started := time.Now()
	id := requestID(r.Header)
	r.Header[requestIDHeader] = []string{id} // the leader must find the same
	c := &call{ctx: r.Context(), route: rt, request: r, params: params, id: id}
	if !rt.brief {
		defer c.bound(started)()
	}
	a, counted := s.answer(c, w)
	if a.stream != nil {
		defer func() { _ = a.stream.Close() }()
	}
	if a.status == 0 {
		a.status = http.StatusOK
	}
	if counted && rt.label != "" {
		s.metrics.Request(rt.label, r.Method, a.status, time.Since(started))
	}
	s.logRefusal(c, a)
	s.write(w, c, &a)
	a.release()
}

// maxLogged bounds how much of a path and of a refusal is logged, in bytes.
const maxLogged = 512

// logRefusal logs a refusal on the replica that made it.
func (s *Server) logRefusal(c *call, a answer) {
	if a.status < http.StatusBadRequest || c.answered || bytes.Equal(a.body, null) {
		return
	}
	s.logger.Info("Error processing HTTP request", "method", head(c.request.Method),
		"path", head(c.request.URL.Path), "status", a.status,
		"request_id", c.id, "body", head(string(a.body)))
}

func head(text string) string { return text[:min(len(text), maxLogged)] }

// answer finds the answer, and whether the request counts in the metrics. A request
// without a valid token does not.
func (s *Server) answer(c *call, w http.ResponseWriter) (a answer, counted bool) {
	if s.auth != nil && !openPaths[c.request.URL.EscapedPath()] {
		want := c.route.scope
		if want == auth.None {
			want = auth.Any
		}
		if err := s.auth.Check(c.request, want); err != nil {
			leaveBody(c.request, w)
			return errorAnswer(err), false
		}
	}
	release, err := s.readBody(c, w)
	if err != nil {
		leaveBody(c.request, w)
		return bodyRefused(err), true
	}
	defer release()
	a, err = s.route(c)
	if err != nil {
		// A request that was forwarded to a replica that does not lead counts where it came
		// in.
		elsewhere := neon.Classify(err) == neon.NotLeader && forward.Forwarded(c.request)
		return s.refuse(c, err), !isNotReady(err) && !elsewhere
	}
	return a, true
}

// route has a request answered by the replica that may answer it.
func (s *Server) route(c *call) (a answer, err error) {
	if c.route.duty == here {
		return s.serveHere(c)
	}
	if c.route.brief {
		if a, err, ok := s.atOnce(c); ok {
			return a, err
		}
		defer c.bound(time.Now())()
	}
	if c.request.Method != http.MethodGet {
		key, byClient, err := requestKey(c)
		if err != nil {
			return answer{}, err
		}
		c.ctx = decide.WithRequest(c.ctx, key)
		if byClient {
			c.ctx = decide.ByClient(c.ctx)
		}
	}
	resp, err := s.forwarder.Route(c.ctx, forward.Request{
		HTTP: c.request, Body: c.body, OnAnyReplica: c.route.duty != onLeader,
		Handle: func() (err error) {
			decide.BeginTry(c.ctx)
			a, err = s.serveHere(c)
			return err
		},
		Acted: func() bool { return decide.HasActed(c.ctx) },
	})
	if resp != nil {
		c.answered = true
		return answer{
			status: resp.Status, header: resp.Header, body: resp.Body, stream: resp.Stream,
		}, nil
	}
	return a, err
}

// refuse prints an error, marked for the replica that forwarded the request here when
// another try makes sense.
func (s *Server) refuse(c *call, err error) answer {
	a := errorAnswer(err)
	if c.route.duty == here {
		return a
	}
	if a.header == nil {
		a.header = http.Header{}
	}
	s.forwarder.Mark(c.ctx, c.request, err, a.header)
	return a
}

// serveHere runs the handler on this replica.
func (s *Server) serveHere(c *call) (a answer, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.logger.Error("handler panicked", "path", c.route.path, "request_id", c.id, "panic", p,
				"stack", string(debug.Stack()))
			a, err = answer{}, neon.Errorf(neon.Internal, "internal error")
		}
	}()
	if c.route.limited {
		if id, perr := c.shard("tenant_id"); perr == nil {
			if err := s.limiter.wait(c.ctx, id.Tenant); err != nil {
				return answer{}, err
			}
		}
	}
	if c.route.ready && !s.readiness.Serves() {
		ctx, cancel := context.WithTimeout(c.ctx, readyTimeout)
		defer cancel()
		switch err := s.readiness.WaitReady(ctx); {
		case errors.Is(err, ErrLeaderless):
			return answer{}, err
		case err != nil:
			return answer{}, errNotReady
		}
	}
	return c.route.handle(c)
}

var errNotReady = neon.Errorf(neon.Timeout, "Timed out waiting for service readiness")

func isNotReady(err error) bool { return err == error(errNotReady) }

func (s *Server) write(w http.ResponseWriter, c *call, a *answer) {
	h := w.Header()
	for k, v := range a.header {
		h[k] = v
	}
	if len(h["Content-Type"]) == 0 && a.status != http.StatusNoContent {
		h["Content-Type"] = jsonType
	}
	h[requestIDHeader] = []string{c.id}
	if a.stream == nil && a.more == nil && a.status >= http.StatusOK &&
		a.status != http.StatusNoContent && a.status != http.StatusNotModified {
		// The length is sent, not chunks: proxies of test suites copy the headers as they
		// are and send the body in one piece.
		h["Content-Length"] = []string{strconv.Itoa(len(a.body))}
	}
	w.WriteHeader(a.status)
	if a.stream != nil {
		copyStream(w, a.stream)
		return
	}
	if len(a.body) > 0 {
		_, err := w.Write(a.body) // the client may be gone
		for on := a.more != nil; on && err == nil; {
			a.body, on = a.more(a.body[:0])
			_, err = w.Write(a.body)
		}
	}
}

var jsonType = []string{"application/json"}

// notFound answers what is not served, and OPTIONS.
func notFound(c *call) (answer, error) {
	if c.request.Method == http.MethodOptions {
		return answer{status: http.StatusNoContent}, nil
	}
	return answer{
		status: http.StatusNotFound,
		header: http.Header{"Content-Type": {"text/plain"}},
		body:   []byte("Not Found"),
	}, nil
}

// copyStream sends a large answer of the leader. When it ends early, the connection to
// the client is broken: a cut answer must not look whole.
func copyStream(w http.ResponseWriter, r io.Reader) {
	if _, err := io.Copy(w, r); err != nil {
		panic(http.ErrAbortHandler)
	}
}
