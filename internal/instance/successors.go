package instance

import (
	"sync"

	"quorate/internal/wait"
)

// successors are the instances that lead after this one. It is the
// leadership.Successor of an instance that has retired.
type successors struct {
	changed wait.Broadcast // of what follows

	mu       sync.Mutex
	leader   holder // as far as is known; zero: none
	expected bool   // another one will lead, or has led, after our turn
}

// Current names the instance that leads now, and its address.
func (s *successors) Current() (name, address string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leader.Name, s.leader.Address
}

// Expected reports whether it makes sense to wait for one.
func (s *successors) Expected() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.expected
}

// Changed returns a channel that is closed when something was learned of them.
func (s *successors) Changed() <-chan struct{} { return s.changed.Changed() }

// begin notes that it is our turn.
func (s *successors) begin(self holder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.changed.Notify()
	s.leader, s.expected = self, false
}

// retire notes that our turn is over, and whether another instance wants the next one.
func (s *successors) retire(wanted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.changed.Notify()
	s.leader, s.expected = holder{}, wanted
}

// over notes who had the last turn and whether an instance wants the next one. It
// reports whether there was a successor and none wants a turn now. The last one may
// still have its turn.
func (s *successors) over(last, self holder, wanted bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	others := last.Name != self.Name
	leader, expected := s.leader, s.expected || wanted || others
	if others {
		leader = last
	}
	if leader != s.leader || expected != s.expected {
		s.leader, s.expected = leader, expected
		s.changed.Notify()
	}
	return s.expected && !wanted
}
