package demo

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"
)

// Style says how the show is displayed.
type Style uint8

// The styles.
const (
	Lines Style = iota // plain lines, for pipes and terminals without colours
	Table              // lines above a table that is redrawn in place
)

// How often the table is redrawn, and a plain status line is printed at most.
const (
	redraw    = 150 * time.Millisecond
	lineEvery = time.Second
)

// screen shows lines and the status.
type screen struct {
	style Style
	began time.Time

	mu     sync.Mutex
	out    io.Writer
	height int // lines of the table on the screen
	last   []string
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

func newScreen(out io.Writer, style Style) *screen {
	return &screen{style: style, out: out, began: time.Now(), cancel: func() {}}
}

// say prints a line that stays.
func (s *screen) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.erase()
	fmt.Fprintf(s.out, "%7.2fs  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
	s.draw(s.last)
}

// print prints lines that stay, without the time.
func (s *screen) print(lines ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.erase()
	for _, l := range lines {
		fmt.Fprintln(s.out, l)
	}
	s.draw(s.last)
}

func (s *screen) erase() {
	if s.height > 0 {
		fmt.Fprintf(s.out, "\x1b[%dA\x1b[J", s.height)
		s.height = 0
	}
}

// draw prints the table without letting the terminal break long rows, which
// would spoil the count of its lines.
func (s *screen) draw(rows []string) {
	if s.height = len(rows); s.height == 0 {
		return
	}
	fmt.Fprint(s.out, "\x1b[?7l")
	for _, r := range rows {
		fmt.Fprintln(s.out, r)
	}
	fmt.Fprint(s.out, "\x1b[?7h")
}

// watch shows the status again and again until close.
func (s *screen) watch(look func(context.Context) (*status, error)) {
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	every := redraw
	if s.style == Lines {
		every = lineEvery
	}
	s.wg.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		before := ""
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			st, err := look(ctx)
			if err != nil && s.style == Lines || ctx.Err() != nil {
				continue
			}
			if s.style == Lines {
				if line := st.line(); line != before {
					before = line
					s.say("  %s", line)
				}
				continue
			}
			s.mu.Lock()
			s.erase()
			if len(st.nodes) > 0 {
				s.last = st.table()
			}
			s.draw(s.last)
			s.mu.Unlock()
		}
	})
}

// close stops watching and leaves what is on the screen.
func (s *screen) close() {
	s.cancel()
	s.wg.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last, s.height = nil, 0
}
