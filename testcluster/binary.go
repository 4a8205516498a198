package testcluster

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
)

// ControllerVariable is the environment variable that names the storage_controller of
// Processes.
const ControllerVariable = "QUORATE_STORAGE_CONTROLLER"

// controllerPackage is what is built when no program is named.
const controllerPackage = "quorate/cmd/storage_controller"

// findController finds the program of Processes when the Builder does not name it.
func findController() (string, error) {
	if named := os.Getenv(ControllerVariable); named != "" {
		if _, err := os.Stat(named); err != nil {
			return "", fmt.Errorf("%s: %w", ControllerVariable, err)
		}
		return named, nil
	}
	built, noBuild := buildOnce()
	if noBuild == nil {
		return built, nil
	}
	found, notInPath := exec.LookPath("storage_controller")
	if notInPath == nil {
		return found, nil
	}
	return "", fmt.Errorf("no storage_controller for Mode: Processes: "+
		"set Builder.Binary or %s to one, put one into PATH, "+
		"or run the test where `go build %s` works: %w", ControllerVariable, controllerPackage,
		errors.Join(noBuild, notInPath))
}

// buildOnce builds the program once in a run of tests.
var buildOnce = sync.OnceValues(buildController)

// buildController builds the storage_controller of the module in use: inside a module
// that requires this one, that is the required version. It leaves one file for each
// directory that it is called in, in the user's cache directory.
func buildController() (string, error) {
	here, err := os.Getwd()
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	sum := sha256.Sum256([]byte(here))
	dir := filepath.Join(cache, "quorate-testcluster", hex.EncodeToString(sum[:8]))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	// Another run of the same tests may be using what is there.
	fresh, err := os.MkdirTemp(dir, "build-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(fresh)
	built := filepath.Join(fresh, "storage_controller")
	out, err := exec.Command("go", "build", "-o", built, controllerPackage).
		CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build %s: %w\n%s", controllerPackage, err, out)
	}
	binary := filepath.Join(dir, "storage_controller")
	return binary, os.Rename(built, binary)
}
