package scheduler

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"quorate/api/neon"
	"quorate/fsm"
)

var rewrite = flag.Bool("rewrite", false, "write what the scripts in testdata print into them")

// TestScripts runs the scripts in testdata. A script is blocks of commands, a
// line `----`, and what they print; each mutation is also checked to leave a
// sound state and to have been counted right. A comment with `#` begins a new
// world, one with `+` goes on with the last. The commands are listed in run.
func TestScripts(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.txt")
	if len(files) == 0 {
		t.Fatal("no scripts")
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			var w *world
			for _, block := range strings.Split(strings.TrimSpace(string(text)), "\n\n") {
				commands, want, _ := strings.Cut(block, "\n----\n")
				if w == nil || strings.HasPrefix(commands, "# ") {
					w = newWorld(t)
				}
				var got strings.Builder
				for _, line := range strings.Split(strings.TrimSuffix(commands, "\n----"), "\n") {
					if f := strings.Fields(line); f[0] != "#" && f[0] != "+" {
						got.WriteString(w.run(f))
					}
				}
				if strings.TrimSpace(got.String()) != strings.TrimSpace(want) && !*rewrite {
					t.Errorf("%s\n---- got\n%s---- want\n%s", commands, got.String(), want)
				}
				fmt.Fprintf(&out, "%s\n----\n%s\n", strings.TrimSuffix(commands, "\n----"),
					got.String())
			}
			if *rewrite {
				if err := os.WriteFile(file, []byte(strings.TrimSpace(out.String())+"\n"),
					0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// run executes one command:
//
//	nodes a:1,2 b:3              active nodes in zones (`-` for no zone)
//	set 1 offline                availability or scheduling policy of a node
//	load 1 disk=2.5 slots=100    utilisation of the disk, reported shards
//	load 1 silent                it does not answer
//	tenant 7 4 attached:1        create a tenant with a number of shards
//	policy 7 secondary [Pause]   change its policies
//	evacuate 1 / rehome 1 / repair
//	migrate 7/0 3 [override]     likewise prewarm and secondary
//	leave 7/0 / failover 7/0 / arrive 7/0
//	show 7 / explain 7/0
func (w *world) run(f []string) string {
	w.t.Helper()
	switch f[0] {
	case "nodes":
		for _, group := range f[1:] {
			az, ids, _ := strings.Cut(group, ":")
			for id := range strings.SplitSeq(ids, ",") {
				w.addNode(nodeID(id), strings.Trim(az, "-"))
			}
		}
	case "set":
		w.set(nodeID(f[1]), f[2])
	case "load":
		w.loads[nodeID(f[1])] = parseLoad(f[2:])
	case "tenant":
		n, _ := strconv.Atoi(f[2])
		return report(w.create(tenant(f[1]), neon.ShardCount(n), policy(f[3]))) +
			w.show(tenant(f[1]))
	case "policy":
		sched := neon.ShardActive
		if len(f) > 3 {
			sched = neon.ShardScheduling(f[3])
		}
		return report(w.update(tenant(f[1]), policy(f[2]), sched)) + w.show(tenant(f[1]))
	case "evacuate":
		return fmt.Sprintf("%d moved\n", w.evacuate(nodeID(f[1]), 2))
	case "rehome":
		return fmt.Sprintf("%d moved\n", w.replaceSecondaries(nodeID(f[1]), 2))
	case "repair":
		w.repair()
	case "migrate", "prewarm", "secondary":
		return w.move(f)
	case "leave", "failover", "arrive":
		return w.propose(f[0], w.shard(f[1]))
	case "show":
		return w.show(tenant(f[1]))
	case "explain":
		return w.scheduler().Explain(w.shard(f[1])).String()
	default:
		w.t.Fatalf("unknown command %q", f)
	}
	return ""
}

func (w *world) set(id neon.NodeID, to string) {
	w.t.Helper()
	switch to {
	case "offline":
		w.judge(id, neon.NodeOffline)
	case "active":
		w.judge(id, neon.NodeActive)
	case "warming":
		w.judge(id, neon.NodeWarmingUp)
	default:
		w.apply(fsm.SetNodeScheduling{Node: id, Scheduling: neon.NodeScheduling(to)})
	}
}

func (w *world) move(f []string) string {
	w.t.Helper()
	override := RespectScheduler
	if len(f) > 3 {
		override = OverrideScheduler
	}
	s, sh := w.scheduler(), w.shard(f[1])
	var in fsm.Intent
	var err error
	switch f[0] {
	case "migrate":
		in, err = s.Migrate(sh, nodeID(f[2]), override)
	case "prewarm":
		in, err = s.Prewarm(sh, nodeID(f[2]), override)
	case "secondary":
		in, err = s.MigrateSecondary(sh, nodeID(f[2]))
	}
	if err != nil {
		return report(err)
	}
	changes := ""
	if !Changes(sh, in) {
		changes = "nothing to do\n"
	}
	w.commit(s, fsm.SetIntents{Intents: []fsm.Intent{in}})
	return changes + w.show(sh.ID.Tenant)
}

// propose makes one proposal for one shard, if there is any.
func (w *world) propose(what string, sh fsm.Shard) string {
	w.t.Helper()
	s := w.scheduler()
	by := map[string]func(fsm.Shard) (fsm.Intent, bool){
		"leave": s.Leave, "failover": s.FailOver, "arrive": s.Arrive,
	}[what]
	in, ok := by(sh)
	if !ok {
		return "nothing is proposed\n"
	}
	w.commit(s, fsm.SetIntents{Intents: []fsm.Intent{in}})
	return w.show(sh.ID.Tenant)
}

func (w *world) shard(s string) fsm.Shard {
	w.t.Helper()
	name, number, _ := strings.Cut(s, "/")
	for _, sh := range w.shards(tenant(name)) {
		if strconv.Itoa(int(sh.ID.Number)) == number {
			return sh
		}
	}
	w.t.Fatalf("no shard %s", s)
	return fsm.Shard{}
}

func report(err error) string {
	if err == nil {
		return ""
	}
	return fmt.Sprintf("%s: %s\n", neon.CodeOf(err), err)
}

func nodeID(s string) neon.NodeID {
	n, _ := strconv.Atoi(s)
	return neon.NodeID(n)
}

func tenant(s string) neon.TenantID {
	n, _ := strconv.Atoi(s)
	return tenantID(n)
}

func policy(s string) neon.Placement {
	kind, n, _ := strings.Cut(s, ":")
	switch kind {
	case "attached":
		k, _ := strconv.Atoi(n)
		return neon.Attached(k)
	case "secondary":
		return neon.Placement{Kind: neon.PlaceSecondary}
	}
	return neon.Placement{}
}

func parseLoad(f []string) (l Load) {
	for _, kv := range f {
		k, v, _ := strings.Cut(kv, "=")
		x, _ := strconv.ParseFloat(v, 64)
		switch k {
		case "silent":
			l.Silent = true
		case "disk":
			l.DiskWanted, l.DiskUsable = uint64(x*1e12), 1e12
		case "slots":
			l.Shards = int(x)
		}
	}
	return l
}
