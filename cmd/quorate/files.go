package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"quorate/internal/results"
)

// openRun reads a run from a file. The beginning of its name, a number of seconds, is its time
// if it has none itself.
func openRun(name string) (*results.Run, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var seconds int64
	if _, err := fmt.Sscanf(filepath.Base(name), "%d_", &seconds); err != nil {
		info, err := f.Stat()
		if err != nil {
			return nil, err
		}
		seconds = info.ModTime().Unix()
	}
	run, err := results.Read(f, time.Unix(seconds, 0))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return run, nil
}
