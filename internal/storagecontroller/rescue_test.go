package storagecontroller

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quorate/cluster"
	"quorate/internal/app"
)

func TestARescueSaysWhatMayBeLost(t *testing.T) {
	p := app.RescuePlan{Tenants: 7, SurvivorInfo: cluster.SurvivorInfo{
		ServerID: "c1", ClusterID: "id", Members: []cluster.Member{{ID: "c2", RaftAddr: "h:1"}},
		Term: 3, LastIndex: 65, AppliedIndex: 25, Leader: "c2", LastEntry: time.Now(),
		LastContact: time.Now(), GoneBack: true,
	}}
	var out bytes.Buffer
	describeRescue(&out, p)
	for _, want := range []string{
		"server c1 of cluster id", "c2 at h:1", "7 tenants", "entry 65", "the leader was c2",
		"Entries up to 25 are known to be committed", "from 26 to 65", "LOST", "GONE BACK",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("does not say %q:\n%s", want, out.String())
		}
	}
}

func TestARestoreNamesTheShardsThatHaveNoGenerationLeft(t *testing.T) {
	var out bytes.Buffer
	warnExhausted(&out, nil)
	if out.Len() > 0 {
		t.Errorf("says %q of nothing", out.String())
	}
	warnExhausted(&out, []string{"abc"})
	if !strings.Contains(out.String(), "LOST: all generations of shard abc are used up") {
		t.Errorf("says %q", out.String())
	}
}

func TestARescueIsConfirmedByTheIDOfTheCluster(t *testing.T) {
	for _, tt := range []struct {
		typed, id string
		ok        bool
	}{
		{"id\n", "id", true}, {" id ", "id", true}, {"yes\n", "id", false}, {"", "id", false},
		{"\n", "", false},
	} {
		var out bytes.Buffer
		err := confirm(strings.NewReader(tt.typed), &out, tt.id)
		if (err == nil) != tt.ok || err != nil && !errors.Is(err, errNotConfirmed) {
			t.Errorf("%q for %q: %v", tt.typed, tt.id, err)
		}
	}
}

func TestASavedSnapshotIsDescribed(t *testing.T) {
	old := cluster.SnapshotInfo{ClusterID: "id", Index: 25, LastIndex: 65, Missing: 40, Term: 2}
	good := cluster.SnapshotInfo{Index: 25, LastIndex: 25, Leader: "c2", LastContact: time.Now()}
	for _, tt := range []struct {
		info  cluster.SnapshotInfo
		wants []string
	}{
		{old, []string{"entry 25 of 65", "MISSING: 40 changes", "NO LEADER", "never since"}},
		{good, []string{"entry 25 of 25", "the leader is c2"}},
	} {
		var out bytes.Buffer
		printSaved(&out, tt.info)
		for _, want := range tt.wants {
			if !strings.Contains(out.String(), want) {
				t.Errorf("does not say %q:\n%s", want, out.String())
			}
		}
	}
	var out bytes.Buffer
	printAge(&out, old)
	if !strings.Contains(out.String(), "40 changes up to entry 65") ||
		!strings.Contains(out.String(), "none when it was saved") {
		t.Error(out.String())
	}
}

func TestRescueAndSaveFailWithTheirCodes(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "saved")
	for _, tt := range []struct {
		args []string
		code int
	}{
		{[]string{"rescue", "--data-dir", dir, "--yes"}, exitError},
		{[]string{"rescue", "--data-dir", dir, "--yes", "-o", "yaml"}, exitUsage},
		{[]string{"rescue", "more"}, exitUsage},
		{[]string{"snapshot", "save", file, "--data-dir", dir, "--stale"}, exitError},
		{[]string{"snapshot", "save", file, "--data-dir", dir, "-o", "yaml"}, exitUsage},
		{[]string{"--dev", "--listen=127.0.0.1:0", "--snapshot-dir", dir, "--snapshot-keep=0"},
			exitUsage},
	} {
		if code := Run(tt.args, Seams{}); code != tt.code {
			t.Errorf("%v exits with %d", tt.args, code)
		}
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("a file is left")
	}
}
