package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"quorate/testcluster"
)

// clockTick is the unit of the processor times in /proc, on every Linux.
const clockTick = 10 * time.Millisecond

// cpuTime is what a process has used of the processors since it started.
func cpuTime(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name, in parentheses, may contain blanks.
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat: too short", pid)
	}
	user, err := strconv.Atoi(fields[11])
	if err != nil {
		return 0, err
	}
	system, err := strconv.Atoi(fields[12])
	return time.Duration(user+system) * clockTick, err
}

// resident is the memory of a process in bytes that is in RAM.
func resident(pid int) (int64, error) {
	return kilobytes(fmt.Sprintf("/proc/%d/status", pid), "VmRSS:")
}

// proportional is resident, but what several processes share, such as their program, counts
// as a part of each.
func proportional(pid int) (int64, error) {
	return kilobytes(fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Pss:")
}

// kilobytes is a line of a file in kB, in bytes.
func kilobytes(file, name string) (int64, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, name); ok {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(v),
				"kB")), 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("%s: no %s", file, name)
}

// wakeUps is how often threads of the controllers were woken up so far.
func wakeUps(c *testcluster.Cluster) (n int64) {
	for i := range c.Controllers() {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", c.PID(i)))
		if err != nil {
			continue
		}
		for _, file := range threads {
			b, err := os.ReadFile(file)
			if err != nil {
				continue // it has ended, and counts no more
			}
			_, rest, _ := strings.Cut(string(b), "\nvoluntary_ctxt_switches:")
			count, _, _ := strings.Cut(rest, "\n")
			if v, err := strconv.ParseInt(strings.TrimSpace(count), 10, 64); err == nil {
				n += v
			}
		}
	}
	return n
}
