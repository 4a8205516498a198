package duty

import "sync"

// Keyed runs at most one piece of work for each key at a time. The zero value is
// ready to use.
type Keyed[K comparable] struct {
	wg    sync.WaitGroup
	mu    sync.Mutex
	going map[K]bool
}

// Start begins work in a goroutine of its own, unless there is some for that key.
// Then it runs ended, with which the caller looks again at what it passed over.
func (k *Keyed[K]) Start(key K, work, ended func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.going[key] {
		return
	}
	if k.going == nil {
		k.going = make(map[K]bool)
	}
	k.going[key] = true
	k.wg.Go(func() {
		work()
		k.mu.Lock()
		delete(k.going, key)
		k.mu.Unlock()
		ended()
	})
}

// Wait returns when no work is going on.
func (k *Keyed[K]) Wait() { k.wg.Wait() }
