package cluster

import (
	"os"
	"path/filepath"

	"quorate/cluster/internal/store"
)

// HasLog reports whether a server has had its log in a data directory. It opens nothing.
func HasLog(dataDir string) bool {
	_, err := os.Stat(filepath.Join(dataDir, store.LogFile))
	return err == nil
}
