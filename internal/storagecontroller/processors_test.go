package storagecontroller

import (
	"runtime"
	"testing"
)

func TestAPageThatIsWaitedForDoesNotStopEverything(t *testing.T) {
	before := runtime.GOMAXPROCS(1)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
	t.Setenv("GOMAXPROCS", "1")
	if spareProcs(); runtime.GOMAXPROCS(0) != 1 {
		t.Error("what the operator has set was changed")
	}
	t.Setenv("GOMAXPROCS", "")
	if spareProcs(); runtime.GOMAXPROCS(0) != minProcs {
		t.Errorf("%d goroutines run at once on a small machine", runtime.GOMAXPROCS(0))
	}
	runtime.GOMAXPROCS(minProcs + 1)
	if spareProcs(); runtime.GOMAXPROCS(0) != minProcs+1 {
		t.Error("a large machine was made small")
	}
}
