package simpageserver

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"quorate/api/neon"
)

// BenchmarkPutLocation measures PUT location_config over a loopback socket, each
// for a new shard, with a client that does as little as possible. Run it with
// -cpu 1 for the cost on one core, the client's included.
func BenchmarkPutLocation(b *testing.B) {
	f := NewFleet(Options{})
	defer f.Close()
	n, err := f.AddNode(NodeOptions{ID: 1})
	if err != nil {
		b.Fatal(err)
	}
	if err := n.Start(context.Background()); err != nil {
		b.Fatal(err)
	}
	conn, err := net.Dial("tcp", n.Addr())
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	r := bufio.NewReader(conn)
	const tenantConf = `{"checkpoint_distance":268435456,"gc_horizon":67108864,"gc_period":"1h","pitr_interval":"7days","heatmap_period":"1m"}`
	b.ReportAllocs()
	for i := range b.N {
		shard := bigShard(i)
		body := fmt.Sprintf(
			`{"mode":"AttachedSingle","generation":1,"secondary_conf":null,"shard_number":%d,"shard_count":4,"shard_stripe_size":2048,"tenant_conf":%s}`,
			shard.Number, tenantConf)
		if _, err := fmt.Fprintf(conn,
			"PUT /v1/tenant/%s/location_config?lazy=true HTTP/1.1\r\nHost: n\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
			shard, len(body), body); err != nil {
			b.Fatal(err)
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 200 {
			b.Fatal(resp.Status, err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "PUT/s")
}

func bigShard(i int) neon.ShardID {
	var t neon.TenantID
	t[0], t[1], t[2], t[3] = byte(i>>26), byte(i>>18), byte(i>>10), byte(i>>2)
	t[15] = 0xee
	return neon.ShardID{Tenant: t, Number: neon.ShardNumber(i % 4), Count: 4}
}

// BenchmarkLocationMemory measures the memory of one attached location with all
// that the oracle knows of its shard, and of one secondary beside it.
func BenchmarkLocationMemory(b *testing.B) {
	const shards = 300_000
	for b.Loop() {
		before := heap()
		f := NewFleet(Options{Oracle: NewOracle(OracleOptions{History: -1})})
		attached := fill(b, f, 1, shards, neon.AttachedSingle)
		middle := heap()
		secondary := fill(b, f, 2, shards, neon.Secondary)
		after := heap()
		b.ReportMetric(float64(middle-before)/shards, "B/attached+oracle")
		b.ReportMetric(float64(after-middle)/shards, "B/secondary")
		runtime.KeepAlive(attached)
		runtime.KeepAlive(secondary)
		f.Close()
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func fill(b *testing.B, f *Fleet, id neon.NodeID, shards int, m neon.LocationMode) *Node {
	n, err := f.AddNode(NodeOptions{ID: id})
	if err != nil {
		b.Fatal(err)
	}
	n.setProcess(newProcess(n, nil, 1))
	n.proc.cancel()
	for i := range shards {
		ch := &locationChange{
			shard: bigShard(i), mode: modeOf(m), gen: 1, hasGen: m.Attached(),
			number: neon.ShardNumber(i % 4), count: 4, stripe: 2048,
		}
		f.Oracle().Granted(ch.shard, 1, 1)
		f.Oracle().received(n.proc.index, ch)
		if r := n.proc.handlers[RouteLocationPut](&call{
			route: RouteLocationPut, shard: ch.shard, change: ch, caller: context.Background(),
		}); r.status != 200 {
			b.Fatal(r)
		}
	}
	return n
}

// BenchmarkListing measures GET /v1/location_config with 100,000 locations.
func BenchmarkListing(b *testing.B) {
	f := NewFleet(Options{Oracle: NewOracle(OracleOptions{History: -1})})
	n := fill(b, f, 1, 100_000, neon.AttachedSingle)
	for b.Loop() {
		if r := n.proc.handlers[RouteLocationList](nil); !strings.HasSuffix(string(r.body[len(r.body)-3:]), "]]}") {
			b.Fatal("cut short")
		}
	}
}

// BenchmarkReattach measures applying the answer of a re-attach of 100,000 shards.
func BenchmarkReattach(b *testing.B) {
	f := NewFleet(Options{Oracle: NewOracle(OracleOptions{History: -1})})
	n := fill(b, f, 1, 100_000, neon.AttachedSingle)
	gen := neon.Generation(1)
	for b.Loop() {
		gen++
		list := make([]reattachTenant, 100_000)
		for i := range list {
			list[i] = reattachTenant{
				shard: bigShard(i), gen: gen, hasGen: true, mode: modeSingle, stripe: 2048,
			}
		}
		n.proc.with(func(now time.Duration, c *core) { n.proc.reattaching.apply(now, c, list) })
	}
}
