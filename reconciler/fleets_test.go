package reconciler

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/scheduler"
)

var (
	fleetsAll = flag.Bool("fleets.all", false, "TestFleets also has 30 and 300 pageservers")
	fleetsDir = flag.String("fleets.dir", "",
		"`directory` into which TestFleets writes its table, and the picture of one run")
)

// fleetTest is a fleet of unequal nodes with shards of unequal sizes, to which things happen.
type fleetTest struct {
	*bench
	zones   int
	disks   map[neon.NodeID]uint64
	moved   counted
	rows    []string
	samples []map[neon.NodeID]int
	marks   map[int]string // what happened, by number of the sample
}

// counted counts moves to better places.
type counted struct {
	noMetrics
	n *int
}

func (c counted) Optimised(n int) { *c.n += n }

// interval is the time between two samples, and calm how long nothing must have moved at
// rest: a node that has fallen twice is steady again by then.
const (
	interval = 5 * time.Second
	calm     = 11 * time.Minute
)

// TestFleets makes the table of docs/balance.md: whatever happens to a fleet, it comes to
// rest within the bounds, within a time.
func TestFleets(t *testing.T) {
	nodes := []int{2, 6}
	if *fleetsAll {
		nodes = []int{2, 6, 30, 300}
	}
	var rows []string
	for _, n := range nodes {
		t.Run(fmt.Sprintf("%d nodes", n), func(t *testing.T) {
			f := &fleetTest{
				marks: make(map[int]string), moved: counted{n: new(int)}, zones: min(3, (n+1)/2),
			}
			defer func() { rows = append(rows, f.rows...) }()
			scenario(t, 0, func(b *bench) {
				f.bench = b
				f.run(n)
			})
			if *fleetsDir != "" && n == 6 {
				f.draw(filepath.Join(*fleetsDir, "balance.svg"))
			}
		})
	}
	table := "| pageservers | shards | what happened | most/fair share by number, before and at" +
		" rest | by size | at rest in the whole fleet, by number and size | moves |" +
		" time until rest |\n|---|---|---|---|---|---|---|---|\n" +
		strings.Join(rows, "")
	t.Log("\n" + table)
	if *fleetsDir != "" {
		if err := os.WriteFile(filepath.Join(*fleetsDir, "balance-table.md"), []byte(table),
			0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func (f *fleetTest) run(nodes int) {
	b := f.bench
	b.depose()
	b.metric = f.moved
	b.opts.HeartbeatInterval, b.opts.MaxOffline = 5*time.Second, 30*time.Second
	f.disks = make(map[neon.NodeID]uint64)
	b.fleet.set(func() { b.fleet.disks, b.fleet.bytes = f.disks, map[neon.ShardID]uint64{} })
	for id := range neon.NodeID(nodes) {
		f.add(id + 1)
	}
	b.lead()
	elapse(time.Minute)
	f.fill(40 * nodes)
	f.rest("tenants placed", func() {})
	f.rest("two drained, restarted after 80 s, filled", func() {
		for id := range neon.NodeID(2) {
			b.begin(id+1, fsm.OperationDrain)
			b.ended()
			b.backAfterRestart(id+1, 80*time.Second)
			elapse(2 * b.opts.HeartbeatInterval) // a fill is of a node that is available
			b.begin(id+1, fsm.OperationFill)
			b.ended()
		}
	})
	f.rest("one dead for 10 minutes, and back", func() {
		b.fleet.set(func() { b.fleet.down[1] = true })
		elapse(10 * time.Minute)
		b.backAfterRestart(1, time.Second)
	})
	f.rest("one added to each zone", func() {
		for id := range neon.NodeID(f.zones) {
			f.add(neon.NodeID(nodes) + id + 1)
		}
		elapse(10 * time.Second)
	})
}

// add registers a node, with a disk of 2 to 4 TiB.
func (f *fleetTest) add(id neon.NodeID) {
	zones := neon.NodeID(f.zones)
	f.fleet.set(func() { f.disks[id] = uint64(2+(id-1)/zones%3) << 40 })
	f.must(fsm.RegisterNode{
		ID: id, Addr: fsm.NodeAddr{HTTPHost: "h", HTTPPort: uint16(id)},
		AZ: neon.MakeAZ(fmt.Sprintf("az-%d", (id-1)%zones)),
	})
}

// fill creates tenants with shards of 1 to 128 GiB, some of four shards.
func (f *fleetTest) fill(shards int) {
	rng := rand.New(rand.NewPCG(1, uint64(shards)))
	for i := 0; shards > 0; i++ {
		id, count := neon.TenantID{0xcc, byte(i >> 8), byte(i)}, neon.ShardCount(0)
		if i%10 == 0 {
			count = 4
		}
		f.createBy(f.now.Loads(), id, count, neon.Attached(1))
		for sh := range f.log.State().TenantShards(id) {
			size := uint64(math.Exp2(7*rng.Float64()) * (1 << 30))
			f.fleet.set(func() { f.fleet.bytes[sh.ID] = size })
			shards--
		}
		if i%50 == 0 {
			elapse(time.Second) // the fleet takes them up
		}
	}
}

// createBy places a tenant by some loads.
func (b *bench) createBy(
	loads map[neon.NodeID]scheduler.Load, id neon.TenantID, count neon.ShardCount,
	policy neon.Placement,
) {
	b.t.Helper()
	shards, err := scheduler.New(b.log.State(), loads).PlaceTenant(id, count, policy)
	if err != nil {
		b.t.Fatal(err)
	}
	b.must(fsm.CreateTenant{
		ID: id, Count: count, Stripe: 2048, Policy: policy, Scheduling: neon.ShardActive,
		Shards: shards,
	})
}

// rest has something happen, waits until nothing moves any more, and writes a row.
func (f *fleetTest) rest(what string, happen func()) {
	f.t.Helper()
	f.marks[len(f.samples)] = what
	before := *f.moved.n
	done := make(chan struct{})
	go func() {
		defer close(done)
		happen()
	}()
	for over := false; !over; {
		select {
		case <-done:
			over = true
		case <-time.After(interval):
			f.samples = append(f.samples, f.numbers())
		}
	}
	was := f.lopsided()
	ended := time.Now()
	changed, last := ended, f.generations()
	for quiet := calm; time.Since(changed) < quiet; {
		elapse(interval)
		f.samples = append(f.samples, f.numbers())
		if now := f.generations(); now != last || f.preferring() > 0 {
			changed, last = time.Now(), now
		}
		if time.Since(changed) >= quiet && f.lopsided().out() {
			quiet = noReturn + calm // until then what has moved does not go back for its size
		}
		if time.Since(ended) > 6*time.Hour {
			f.t.Errorf("%s: it does not rest", what)
			return
		}
	}
	is := f.lopsided()
	f.rows = append(f.rows, fmt.Sprintf(
		"| %d | %d | %s | %.2f → %.2f | %.2f → %.2f | %.2f, %.2f | %d | %s |\n",
		len(f.disks), f.log.State().ShardCount(), what, was.number, is.number, was.size, is.size,
		is.fleetNumber, is.fleetSize, *f.moved.n-before, changed.Sub(ended).Round(interval)))
	if is.out() {
		f.t.Errorf("%s: at rest %+v", what, is)
	}
	f.awaitIdle()
	f.check()
}

func (f *fleetTest) generations() (sum uint64) {
	for sh := range f.log.State().ShardsFrom(neon.ShardID{}) {
		sum += uint64(sh.Generation)
	}
	return sum
}

// lopsidedness is the most that a node has for its disk, beside the mean of its zone, and
// beside that of the fleet.
type lopsidedness struct {
	number, size           float64
	fleetNumber, fleetSize float64
	excess, largest        float64 // of the node with the most bytes
}

// out reports whether some node is out of its bounds.
func (l lopsidedness) out() bool {
	return l.number > 1.05 || l.size > 1.15 && l.excess > 4./3*l.largest
}

// sum is what nodes have together.
type sum struct{ disk, shards, bytes, largest float64 }

func (s sum) add(o sum) sum {
	return sum{s.disk + o.disk, s.shards + o.shards, s.bytes + o.bytes, max(s.largest, o.largest)}
}

func (f *fleetTest) lopsided() (l lopsidedness) {
	f.fleet.mu.Lock()
	defer f.fleet.mu.Unlock()
	st := f.log.State()
	nodes, zones, all := map[neon.NodeID]sum{}, map[neon.AZ]sum{}, sum{}
	for n := range st.Nodes() {
		has := sum{disk: float64(f.disks[n.ID])}
		for sh := range st.AttachedOn(n.ID, neon.ShardID{}) {
			size := float64(f.fleet.bytes[sh.ID])
			has = has.add(sum{0, 1, size, size})
		}
		nodes[n.ID], zones[n.AZ], all = has, zones[n.AZ].add(has), all.add(has)
	}
	for n := range st.Nodes() {
		has, zone := nodes[n.ID], zones[n.AZ]
		part, whole := has.disk/zone.disk, has.disk/all.disk
		l.number = max(l.number, has.shards/(zone.shards*part))
		l.fleetNumber = max(l.fleetNumber, has.shards/(all.shards*whole))
		l.fleetSize = max(l.fleetSize, has.bytes/(all.bytes*whole))
		if r := has.bytes / (zone.bytes * part); r > l.size {
			l.size, l.excess, l.largest = r, has.bytes-zone.bytes*part, has.largest
		}
	}
	return l
}

// draw writes the numbers of shards over time, a line for each node.
func (f *fleetTest) draw(path string) {
	const width, height, left, top = 900, 320, 40, 20
	most := 0
	for _, s := range f.samples {
		for _, n := range s {
			most = max(most, n)
		}
	}
	x := func(i int) float64 { return left + float64(i)*width/float64(len(f.samples)) }
	y := func(n int) float64 { return top + height - float64(n)*height/float64(most+5) }
	var s strings.Builder
	fmt.Fprintf(&s, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" `+
		`font-family="sans-serif" font-size="11">`+"\n", left+width+120, top+height+40)
	fmt.Fprintf(&s, `<rect width="100%%" height="100%%" fill="white"/>`+"\n")
	for n := 0; n <= most; n += 20 {
		fmt.Fprintf(&s, `<path d="M%d %.0fh%d" stroke="#ddd"/><text x="8" y="%.0f">%d</text>`+"\n",
			left, y(n), width, y(n)+4, n)
	}
	for i, what := range f.marks {
		fmt.Fprintf(&s, `<path d="M%.0f %dv%d" stroke="#999" stroke-dasharray="3"/>`+
			`<text x="%.0f" y="%d">%s</text>`+"\n", x(i), top, height, x(i)+3,
			top+height+14+14*(i%2), what)
	}
	for id := range f.disks {
		color := fmt.Sprintf("hsl(%d,70%%,40%%)", int(id)*360/len(f.disks))
		var d []string
		for i, sample := range f.samples {
			if n, ok := sample[id]; ok {
				d = append(d, fmt.Sprintf("%.1f %.1f", x(i), y(n)))
			}
		}
		fmt.Fprintf(&s, `<polyline points="%s" fill="none" stroke="%s" stroke-width="1.5"/>`+
			`<text x="%d" y="%d" fill="%s">node %d, %d TiB</text>`+"\n", strings.Join(d, " "), color,
			left+width+8, top+14*int(id), color, id, f.disks[id]>>40)
	}
	s.WriteString("</svg>\n")
	lines := strings.SplitAfter(s.String(), "\n")
	slices.Sort(lines[2 : len(lines)-2]) // maps have no order
	if err := os.WriteFile(path, []byte(strings.Join(lines, "")), 0o644); err != nil {
		f.t.Fatal(err)
	}
}
