package results

import (
	"context"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"quorate/internal/wait"
)

// Noise is what else went on while something was measured.
type Noise struct {
	Steal float64 `json:"steal"` // percent of all processors that the host took
	Load  float64 `json:"load"`  // mean of the load average of one minute

	// Fsync is how long a write of 4 KiB and its fsync took beside the measurement, in the
	// directory of its data.
	FsyncMedian float64 `json:"fsync_median"` // seconds
	FsyncMax    float64 `json:"fsync_max"`
}

// noisePause is how often the disk is tried: seldom enough that it is no load.
const noisePause = 500 * time.Millisecond

// Watch is a look at the machine that goes on until it is ended.
type Watch struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup

	began  processors
	loads  []float64
	fsyncs []float64
}

// WatchMachine begins to watch the machine, and the disk of a directory; empty is that of temporary
// files.
func WatchMachine(ctx context.Context, dir string) *Watch {
	ctx, cancel := context.WithCancel(ctx)
	w := &Watch{cancel: cancel, began: readProcessors()}
	w.wg.Go(func() { w.look(ctx, dir) })
	return w
}

func (w *Watch) look(ctx context.Context, dir string) {
	f, err := os.CreateTemp(dir, "noise-")
	if err == nil {
		defer os.Remove(f.Name())
		defer f.Close()
	}
	block := make([]byte, 4096)
	for {
		if f != nil {
			began := time.Now()
			if _, err := f.WriteAt(block, 0); err == nil && f.Sync() == nil {
				w.fsyncs = append(w.fsyncs, time.Since(began).Seconds())
			}
		}
		first, _, _ := strings.Cut(readFile("/proc/loadavg"), " ")
		if v, err := strconv.ParseFloat(first, 64); err == nil {
			w.loads = append(w.loads, v)
		}
		if wait.Sleep(ctx, noisePause) != nil {
			return
		}
	}
}

// End says what was seen.
func (w *Watch) End() Noise {
	w.cancel()
	w.wg.Wait()
	now := readProcessors()
	n := Noise{}
	if all := now.all - w.began.all; all > 0 {
		n.Steal = 100 * (now.steal - w.began.steal) / all
	}
	loads := Values("", "", "", Neither, w.loads...)
	fsyncs := Values("", "", Seconds, Less, w.fsyncs...)
	n.Load, n.FsyncMedian, n.FsyncMax = loads.Mean, fsyncs.Median, fsyncs.Max
	return n
}

// processors are ticks of all processors since the machine started.
type processors struct{ all, steal float64 }

func readProcessors() (p processors) {
	line, _, _ := strings.Cut(readFile("/proc/stat"), "\n")
	for i, field := range strings.Fields(line) {
		v, err := strconv.ParseFloat(field, 64)
		if err != nil || i > 8 { // guests are counted with the users
			continue
		}
		p.all += v
		if i == 8 {
			p.steal = v
		}
	}
	return p
}
