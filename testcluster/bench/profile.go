package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"quorate/api/neon"
	"quorate/internal/results"
	"quorate/testcluster"
)

// profiled is how long the leader is looked at under each kind of load.
const profiled = 5 * time.Second

// profiles draws where the leader's time goes while tenants are created, located and
// described. It has no results of its own but how much was asked for meanwhile.
func profiles(ctx context.Context, o *BenchOptions) (found []results.Result, err error) {
	ctx, cancel := context.WithTimeout(ctx, partTimeout)
	defer cancel()
	c, _, _, err := o.startCrowd(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	for _, k := range []struct {
		name, title string
		load        func(context.Context) error
	}{
		{"create", "while 32 clients create tenants of 4 shards", creating(o, c)},
		{"locate", "while 128 clients locate tenants", readingAll(o, c, o.locatePath)},
		{"describe", "while 128 clients describe tenants", readingAll(o, c, o.describePath)},
	} {
		svg, err := profileLeader(ctx, c, k.load)
		if err != nil {
			return nil, fmt.Errorf("profile %s: %w", k.name, err)
		}
		if o.recorded != nil {
			o.recorded.Drawings = append(o.recorded.Drawings, results.Drawing{
				Name: k.name, Title: "Processor time of the leader " + k.title, SVG: string(svg),
			})
		}
	}
	return nil, nil
}

func readingAll(
	o *BenchOptions, c *testcluster.Cluster, path func(int) string,
) func(context.Context) error {
	return func(ctx context.Context) error {
		var all []int
		for i := range c.Controllers() {
			all = append(all, i)
		}
		_, _, err := reads(ctx, c, reading{
			replicas: all, clients: readClients, lasting: profiled + time.Second, path: path,
		})
		return err
	}
}

// creating creates tenants behind the crowd until its context ends.
func creating(o *BenchOptions, c *testcluster.Cluster) func(context.Context) error {
	return func(ctx context.Context) error {
		g := new(errgroup.Group)
		for k := range crowdClients {
			g.Go(func() error {
				client := c.Client()
				for n := o.Tenants + k; ctx.Err() == nil; n += crowdClients {
					if _, err := client.Tenants().Create(ctx,
						createRequest(n, crowdShards, neon.Attached(1))); err != nil &&
						ctx.Err() == nil {
						return err
					}
				}
				return nil
			})
		}
		return g.Wait()
	}
}

// profileLeader draws the profile of the leader under a load.
func profileLeader(
	ctx context.Context, c *testcluster.Cluster, load func(context.Context) error,
) (svg []byte, err error) {
	leader, err := caughtUp(ctx, c)
	if err != nil {
		return nil, err
	}
	g, ctx := errgroup.WithContext(ctx)
	under, cancel := context.WithCancel(ctx)
	g.Go(func() error { return load(under) })
	g.Go(func() error {
		defer cancel()
		svg, err = fetchProfile(ctx, c.URL(leader))
		return err
	})
	err = g.Wait()
	if errors.Is(err, context.Canceled) && svg != nil {
		err = nil
	}
	return svg, err
}

func fetchProfile(ctx context.Context, base string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet,
		fmt.Sprintf("%sprofile/cpu?format=svg&seconds=%.0f", base, profiled.Seconds()), nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New("answer " + resp.Status + ": " + strings.TrimSpace(string(b)))
	}
	return b, err
}
