package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"quorate/api/neon"
	"quorate/internal/results"
	"quorate/testcluster"
)

// The crowd is what most requests are measured with: each pageserver has about 1,000 attached
// and 1,000 secondary locations.
const (
	CrowdTenants     = 2500
	crowdShards      = 4 // of each
	crowdPageservers = 10
	crowdClients     = 32
	readClients      = 128
	listPage         = 100
	listTimes        = 20
	reAttachTimes    = 5
)

// The goals of requests to three controllers.
const (
	createGoal    = 4800 // shards a second
	createP99     = 60 * time.Millisecond
	locateGoal    = 40000 // a second
	locateCPU     = 40 * time.Microsecond
	describeGoal  = 35000
	describeCPU   = 50 * time.Microsecond
	listGoal      = 12 * time.Millisecond
	listPagesGoal = 18 * time.Millisecond
	reAttachGoal  = 7 * time.Millisecond
	memoryGoal    = 90e6 // bytes, all controllers
	idleGoal      = 0.8  // percent of one core, all controllers
	idleAloneGoal = 0.2
)

// labelled labels results of a crowd that is not the usual one, which the goals are for.
func (o *BenchOptions) labelled(found []results.Result) []results.Result {
	if o.Tenants != CrowdTenants {
		for i := range found {
			found[i] = found[i].With("tenants", strconv.Itoa(o.Tenants))
			found[i].Goals = nil
		}
	}
	return found
}

// startCrowd starts a cluster and creates the crowd. It returns how long that took in all and
// for each request.
func (o *BenchOptions) startCrowd(
	ctx context.Context,
) (c *testcluster.Cluster, took time.Duration, each durations, err error) {
	c, err = o.start(ctx, fleet{pageservers: crowdPageservers, builder: atLeisure()})
	if err != nil {
		return nil, 0, nil, err
	}
	took, each, err = createEach(ctx, c, creation{
		tenants: o.Tenants, shards: crowdShards, clients: crowdClients,
		policy: neon.Attached(1),
	})
	if err == nil {
		err = c.WaitQuiescent(ctx)
	}
	if err == nil {
		_, err = caughtUp(ctx, c)
	}
	if err != nil {
		return nil, 0, nil, errors.Join(err, c.Stop())
	}
	return c, took, each, nil
}

// partTimeout bounds one cluster with all that is measured on it.
const partTimeout = 10 * time.Minute

// requests measures creations, reads, lists and re-attaches.
func requests(ctx context.Context, o *BenchOptions) (found []results.Result, err error) {
	ctx, cancel := context.WithTimeout(ctx, partTimeout)
	defer cancel()
	c, took, each, err := o.startCrowd(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	cpu, _, err := used(c) // since they started
	if err != nil {
		return nil, err
	}
	found = []results.Result{
		rate("create.rate", "create tenants of 4 shards and secondaries, 32 clients", "shards/s",
			float64(o.Tenants*crowdShards)/took.Seconds()).Want(results.Median, createGoal),
		results.Durations("create.time", "… one request, answered when all is attached", each).
			WantWithin(results.P99, createP99),
		single("create.cpu", "… processor time a shard, all controllers, their start included",
			cpu/time.Duration(o.Tenants*crowdShards)),
	}
	for _, measure := range []func(
		context.Context, *testcluster.Cluster,
	) ([]results.Result, error){o.readRates, o.lists, o.reAttaches, o.memoryOfAll} {
		more, err := measure(ctx, c)
		if err != nil {
			return found, err
		}
		found = append(found, more...)
	}
	return o.labelled(found), nil
}

func (o *BenchOptions) locatePath(n int) string {
	return "/debug/v1/tenant/" + tenantID(n%o.Tenants).String() + "/locate"
}

func (o *BenchOptions) describePath(n int) string {
	return "/control/v1/tenant/" + tenantID(n%o.Tenants).String()
}

// readRates measures reads through all controllers, and locates through the leader and the
// others alone.
func (o *BenchOptions) readRates(
	ctx context.Context, c *testcluster.Cluster,
) (found []results.Result, err error) {
	leader, err := caughtUp(ctx, c)
	if err != nil {
		return nil, err
	}
	var all, followers []int
	for i := range c.Controllers() {
		if all = append(all, i); i != leader {
			followers = append(followers, i)
		}
	}
	type asked struct {
		name, title string
		replicas    []int
		path        func(int) string
		goal        float64
		cpu         time.Duration
	}
	kinds := []asked{
		{"locate", "locate, 128 clients", all, o.locatePath, locateGoal, locateCPU},
		{"describe", "describe a tenant, 128 clients", all, o.describePath, describeGoal,
			describeCPU},
	}
	if len(followers) > 0 {
		kinds = append(kinds,
			asked{"locate.leader", "locate through the leader", []int{leader}, o.locatePath, 0, 0},
			asked{"locate.followers", "locate through followers", followers, o.locatePath, 0, 0})
	}
	for _, k := range kinds {
		ours, _, err := used(c)
		if err != nil {
			return nil, err
		}
		perSecond, took, err := reads(ctx, c, reading{
			replicas: k.replicas, clients: readClients, lasting: o.Reads, path: k.path,
		})
		if err != nil {
			return nil, err
		}
		then, _, err := used(c)
		if err != nil {
			return nil, err
		}
		speed := rate(k.name+".rate", k.title, "reads/s", perSecond)
		cost := results.Durations(k.name+".cpu", "… processor time a read, all controllers",
			durations{(then - ours) / time.Duration(max(1, len(took)))})
		if k.goal > 0 {
			speed = speed.Want(results.Median, k.goal)
			cost = cost.WantWithin(results.Median, k.cpu)
		}
		found = append(found, speed, cost,
			results.Durations(k.name+".time", "… one read", took))
	}
	return found, nil
}

// lists measures how long lists of all tenants take, through each controller in turn.
func (o *BenchOptions) lists(
	ctx context.Context, c *testcluster.Cluster,
) (found []results.Result, err error) {
	if list, err := c.Client().Tenants().List(ctx, neon.TenantID{}, 0); err != nil {
		return nil, err
	} else if len(list) != o.Tenants {
		return nil, fmt.Errorf("%d of %d tenants are listed", len(list), o.Tenants)
	}
	ids := make([]neon.TenantID, o.Tenants)
	for n := range ids {
		ids[n] = tenantID(n)
	}
	slices.SortFunc(ids, func(a, b neon.TenantID) int { return bytes.Compare(a[:], b[:]) })
	pages := []string{fmt.Sprintf("/control/v1/tenant?limit=%d", listPage)}
	for at := listPage; at < len(ids); at += listPage {
		pages = append(pages,
			fmt.Sprintf("/control/v1/tenant?limit=%d&start_after=%s", listPage, ids[at-1]))
	}
	for _, k := range []struct {
		name, title string
		paths       []string
		goal        time.Duration
	}{
		{"list.whole", "list all tenants in one", []string{"/control/v1/tenant"}, listGoal},
		{"list.pages", "list all tenants by 100", pages, listPagesGoal},
	} {
		var took durations
		for n := range listTimes {
			d, err := fetchAll(ctx, c.URL(n%c.Controllers()), k.paths)
			if err != nil {
				return nil, fmt.Errorf("list: %w", err)
			}
			took = append(took, d)
		}
		found = append(found,
			results.Durations(k.name+".time", k.title, took).WantWithin(results.Median, k.goal))
	}
	return found, nil
}

// fetchAll gets one thing after another over one connection.
func fetchAll(ctx context.Context, base string, paths []string) (time.Duration, error) {
	target, err := url.Parse(base)
	if err != nil {
		return 0, err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", target.Host)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	in := bufio.NewReaderSize(conn, 1<<16)
	began := time.Now()
	for _, p := range paths {
		if err := get(conn, in, target.Host, p); err != nil {
			return 0, err
		}
	}
	return time.Since(began), nil
}

// reAttached is the pageserver whose re-attach is measured.
const reAttached = neon.NodeID(3)

// reAttaches measures the answer to a pageserver that starts. It does not start in truth; the
// controllers then give its shards their new numbers, which is waited for.
func (o *BenchOptions) reAttaches(
	ctx context.Context, c *testcluster.Cluster,
) ([]results.Result, error) {
	leader, err := caughtUp(ctx, c)
	if err != nil {
		return nil, err
	}
	attached := c.Fleet().Attached()[reAttached]
	var took durations
	for range reAttachTimes {
		began := time.Now()
		if err := reAttach(ctx, c.URL(leader)); err != nil {
			return nil, fmt.Errorf("re-attach: %w", err)
		}
		took = append(took, time.Since(began))
		if err := c.WaitQuiescent(ctx); err != nil {
			return nil, err
		}
	}
	return []results.Result{
		results.Durations("reattach.time", "answer to the re-attach of a pageserver", took).
			WantWithin(results.Median, reAttachGoal).
			Noting("%d attached, and as many secondary on average", attached),
	}, nil
}

func reAttach(ctx context.Context, base string) error {
	body := fmt.Sprintf(`{"node_id":%d}`, reAttached)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"upcall/v1/re-attach",
		bytes.NewReader([]byte(body)))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New("answer " + resp.Status)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// memoryOfAll is what all controllers together have in memory.
func (o *BenchOptions) memoryOfAll(
	_ context.Context, c *testcluster.Cluster,
) ([]results.Result, error) {
	var all, once int64
	for i := range c.Controllers() {
		rss, err := resident(c.PID(i))
		if err != nil {
			return nil, err
		}
		pss, err := proportional(c.PID(i))
		if err != nil {
			return nil, err
		}
		all, once = all+rss, once+pss
	}
	return []results.Result{
		results.Values("memory.all", "resident memory of all controllers after it", results.Bytes,
			results.Less, float64(all)),
		results.Values("memory.once", "… with what they share, as their program, counted once",
			results.Bytes, results.Less, float64(once)).Want(results.Median, memoryGoal),
	}, nil
}

// idling measures what a cluster uses that nobody asks for anything.
func idling(ctx context.Context, o *BenchOptions) (found []results.Result, err error) {
	ctx, cancel := context.WithTimeout(ctx, partTimeout+o.Idle)
	defer cancel()
	c, _, _, err := o.startCrowd(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	found, err = o.idle(ctx, c)
	if err != nil {
		return nil, err
	}
	goal := idleGoal
	if c.Controllers() == 1 {
		goal = idleAloneGoal
	}
	found[0] = found[0].Want(results.Median, goal)
	rested, err := o.memoryOfAll(ctx, c)
	if err != nil {
		return found, err
	}
	rested[0].Name, rested[0].Title = "memory.rested", "resident memory of all controllers"
	return o.labelled(append(found, rested...)), nil
}
