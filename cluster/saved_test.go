package cluster

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// TestAStateFromElsewhereIsSaved: equal states make equal files, and a file is read as any
// other.
func TestAStateFromElsewhereIsSaved(t *testing.T) {
	var files [2]bytes.Buffer
	at := time.Unix(1_700_000_000, 0)
	for i := range files {
		err := WriteSaved(t.Context(), &files[i], "origin", at, bytes.NewBufferString("the state"))
		if err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(files[0].Bytes(), files[1].Bytes()) {
		t.Error("two files of one state differ")
	}
	var state strings.Builder
	info, err := InspectSnapshot(&files[0], &state)
	if err != nil || state.String() != "the state" || info.ClusterID != "origin" ||
		info.Index == 0 || info.Missing != 0 || !info.Created.Equal(at) {
		t.Errorf("%v, %q, %+v", err, state.String(), info)
	}
}
