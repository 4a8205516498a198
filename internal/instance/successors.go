package instance

import "sync"

// successors are the instances that lead after this one. It is the
// leadership.Successor of an instance that has retired.
type successors struct {
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

// begin notes that it is our turn.
func (s *successors) begin(self holder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leader, s.expected = self, false
}

// retire notes that our turn is over, and whether another instance wants the next one.
func (s *successors) retire(wanted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leader, s.expected = holder{}, wanted
}

// over notes who had the last turn and whether an instance wants the next one. It
// reports whether there was a successor and none wants a turn now. The last one may
// still have its turn.
func (s *successors) over(last, self holder, wanted bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	others := last.Name != self.Name
	if others {
		s.leader = last
	}
	s.expected = s.expected || wanted || others
	return s.expected && !wanted
}
