package testcluster_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/testcluster/simpageserver"
)

// stacks logs what the goroutines of the controllers are waiting for.
func (e *episode) stacks() {
	buf := make([]byte, 16<<20)
	buf = buf[:runtime.Stack(buf, true)]
	for g := range bytes.SplitSeq(buf, []byte("\n\n")) {
		if bytes.Contains(g, []byte("quorate/internal/")) ||
			bytes.Contains(g, []byte("quorate/reconciler.")) ||
			bytes.Contains(g, []byte("quorate/cluster.")) ||
			bytes.Contains(g, []byte("quorate/api.")) {
			e.Logf("%s", g)
		}
	}
}

// explain logs all that happened to the shards of the first violations. With
// -artifacts the whole history is kept in a file.
func (e *episode) explain() {
	name := filepath.Join(e.ArtifactDir(), fmt.Sprintf("history-%d.jsonl", e.seed))
	if f, err := os.Create(name); err == nil {
		err = errors.Join(e.Oracle().Dump(f), f.Close())
		e.Logf("seed %d: history in %s (with -artifacts): %v", e.seed, name, err)
	}
	for i, v := range e.Oracle().Violations() {
		if i == 3 {
			return
		}
		e.Logf("seed %d: the history of %s", e.seed, v)
		for _, x := range e.Oracle().History() {
			if x.Shard == v.Shard || x.Node == v.Node &&
				(x.Kind == simpageserver.EventStarted || x.Kind == simpageserver.EventEnded) {
				e.logEvent(x)
			}
		}
	}
}

// describeUnserved logs what is known of the shards that are not served.
func (e *episode) describeUnserved(ctx context.Context, s *fsm.State) {
	for sh := range s.ShardsFrom(neon.ShardID{}) {
		tenant, _ := s.Tenant(sh.ID.Tenant)
		why := e.unserved(s, tenant, sh)
		if why == "" {
			continue
		}
		d, err := e.Client().Tenants().Describe(ctx, tenant.ID)
		for _, known := range d.Shards {
			if known.Shard == sh.ID {
				e.Logf("%s: %+v, known as %+v, %v", why, sh, known, err)
			}
		}
	}
}

// shardNames finds shards, tenants and timelines in the text of an error.
var shardNames = regexp.MustCompile("[0-9a-f]{32}(-[0-9a-f]{4})?")

const (
	explainedShards = 3  // of one error
	explainedLines  = 60 // of each shard, and of the log of each controller
)

// explainShards logs the last that happened to the shards that an error names, and what
// the controllers have said of them.
func (e *episode) explainShards(err error) {
	if err == nil {
		return
	}
	names := shardNames.FindAllString(err.Error(), -1)
	slices.Sort(names)
	names = slices.Compact(names)
	for _, name := range names[:min(len(names), explainedShards)] {
		e.Logf("seed %d: the last of shard %s", e.seed, name)
		e.logRecord(name)
		var events []simpageserver.Event
		for _, x := range e.Oracle().History() {
			if x.Shard.String() == name {
				events = append(events, x)
			}
		}
		for _, x := range events[max(0, len(events)-explainedLines):] {
			e.logEvent(x)
		}
		for i := range e.Controllers() {
			var lines [][]byte
			for line := range bytes.Lines([]byte(e.Log(i))) {
				if bytes.Contains(line, []byte(name)) {
					lines = append(lines, bytes.TrimSpace(line))
				}
			}
			for _, line := range lines[max(0, len(lines)-explainedLines):] {
				e.Logf("controller %d: %s", i, line)
			}
		}
	}
}

// logRecord logs the record of a shard and of its tenant.
func (e *episode) logRecord(name string) {
	id, err := neon.ParseShardID(name)
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := e.newestState(ctx)
	if err != nil {
		return
	}
	if tenant, ok := s.Tenant(id.Tenant); ok {
		e.Logf("tenant %+v", tenant)
	}
	if sh, ok := s.Shard(id); ok {
		e.Logf("shard %+v", sh)
	}
}

func (e *episode) logEvent(x simpageserver.Event) {
	e.Logf("%12s %-10s node %s.%d gen %d %s late %v %s", x.At.Round(time.Microsecond),
		x.Kind, x.Node, x.Incarnation, x.Generation, x.Mode, x.Late, x.Note)
}
