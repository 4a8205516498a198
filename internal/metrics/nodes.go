package metrics

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"quorate/api/neon"
)

// nodeSeries are series that name a node. Those of a node that is registered no more
// are dropped at a scrape, and when another node gets its first ones: there
// are never more than those of the registered nodes and of one other.
type nodeSeries struct {
	label      string // whose value is the id of the node
	registered func(neon.NodeID) bool
	vectors    []nodeVector

	mu   sync.Mutex
	seen map[neon.NodeID]string // nodes that may have series, with their further labels
}

type nodeVector interface {
	prometheus.Collector
	DeletePartialMatch(prometheus.Labels) int
}

func newNodeSeries(
	label string, registered func(neon.NodeID) bool, vectors ...nodeVector,
) *nodeSeries {
	return &nodeSeries{
		label: label, registered: registered, vectors: vectors,
		seen: make(map[neon.NodeID]string),
	}
}

// Call is one finished request to a pageserver or safekeeper.
type Call struct {
	Node   neon.NodeID
	Path   string // label of the path, without ids
	Method string
	OK     bool
	Took   time.Duration
}

func (s *nodeSeries) count(
	latency *prometheus.HistogramVec, errs *prometheus.CounterVec, c Call,
) {
	id, method := c.Node.String(), methodLabel(c.Method)
	latency.WithLabelValues(id, c.Path, method).Observe(c.Took.Seconds())
	if !c.OK {
		errs.WithLabelValues(id, c.Path, method).Inc()
	}
	s.note(c.Node, "")
}

// note is called after a node has got a series.
func (s *nodeSeries) note(id neon.NodeID, labels string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.seen[id]; ok {
		return
	}
	s.drop()
	s.seen[id] = labels
}

// rename drops the series of a node that has other labels now. It is called before it
// gets new ones.
func (s *nodeSeries) rename(id neon.NodeID, labels string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if last, ok := s.seen[id]; ok && last != labels {
		s.forget(id)
		s.seen[id] = labels
	}
}

// drop drops what is about nodes that are not registered. It runs under the lock.
func (s *nodeSeries) drop() {
	for id := range s.seen {
		if !s.registered(id) {
			s.forget(id)
			delete(s.seen, id)
		}
	}
}

func (s *nodeSeries) forget(id neon.NodeID) {
	for _, v := range s.vectors {
		v.DeletePartialMatch(prometheus.Labels{s.label: id.String()})
	}
}

// Describe is part of prometheus.Collector.
func (s *nodeSeries) Describe(out chan<- *prometheus.Desc) {
	for _, v := range s.vectors {
		v.Describe(out)
	}
}

// Collect is part of prometheus.Collector.
func (s *nodeSeries) Collect(out chan<- prometheus.Metric) {
	s.mu.Lock()
	s.drop()
	s.mu.Unlock()
	for _, v := range s.vectors {
		v.Collect(out)
	}
}
