package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"quorate/api/client"
	"quorate/api/neon"
	"quorate/internal/results"
)

// RemoteOptions say what Remote measures.
type RemoteOptions struct {
	Report

	Addresses []string // of the controllers of a cluster that exists
	Token     string   // of scope admin; empty without tokens
	Clients   int
	Lasting   time.Duration // of each measurement
}

// errEmpty is met when a cluster has nothing to read.
var errEmpty = errors.New("the cluster has no tenants")

// Remote measures reads of a cluster that exists, on machines of its own. It changes nothing
// there.
func Remote(ctx context.Context, o RemoteOptions) (*results.Run, error) {
	if o.Against != "" {
		return nil, errors.New("a cluster that exists cannot be measured in turn with another")
	}
	local := &Options{}
	run := o.begin(local)
	run.RemoteCluster = true
	return run, o.suite(ctx, local, run, "remote", "Reads of a cluster that exists",
		func(ctx context.Context, _ string) ([]results.Result, error) { return o.measure(ctx) })
}

func (o *RemoteOptions) measure(ctx context.Context) (found []results.Result, err error) {
	clients := make([]*client.Client, o.Clients)
	for i := range clients {
		clients[i] = client.New(client.Options{
			Address: client.At(o.Addresses[i%len(o.Addresses)]), Token: o.Token,
			FollowRedirects: true,
		})
	}
	began := time.Now()
	list, err := clients[0].Tenants().List(ctx, neon.TenantID{}, 1000)
	if err != nil {
		return nil, fmt.Errorf("list tenants: %w", err)
	}
	if len(list) == 0 {
		return nil, errEmpty
	}
	found = append(found, single("remote.list.time", "list up to 1,000 tenants",
		time.Since(began)).Noting("%d tenants", len(list)))
	for _, k := range []struct {
		name string
		read func(context.Context, client.Tenants, neon.TenantID) error
	}{
		{"locate", func(ctx context.Context, t client.Tenants, id neon.TenantID) error {
			_, err := t.Locate(ctx, id)
			return err
		}},
		{"describe", func(ctx context.Context, t client.Tenants, id neon.TenantID) error {
			_, err := t.Describe(ctx, id)
			return err
		}},
	} {
		perSecond, took, err := o.readAll(ctx, clients, list, k.read)
		if err != nil {
			return found, fmt.Errorf("%s: %w", k.name, err)
		}
		found = append(found,
			rate("remote."+k.name+".rate", k.name, "reads/s", perSecond),
			results.Durations("remote."+k.name+".time", "… one read", took))
	}
	return found, nil
}

// readAll has all clients read, each waiting for its answer.
func (o *RemoteOptions) readAll(
	ctx context.Context, clients []*client.Client, list []neon.TenantDescribe,
	read func(context.Context, client.Tenants, neon.TenantID) error,
) (perSecond float64, took durations, err error) {
	each := make([]durations, len(clients))
	began := time.Now()
	end := began.Add(o.Lasting)
	g, ctx := errgroup.WithContext(ctx)
	for n, c := range clients {
		g.Go(func() error {
			for i := n; time.Now().Before(end); i += 7919 {
				sent := time.Now()
				if err := read(ctx, c.Tenants(), list[i%len(list)].Tenant); err != nil {
					return err
				}
				each[n] = append(each[n], time.Since(sent))
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return 0, nil, err
	}
	for _, d := range each {
		took = append(took, d...)
	}
	return float64(len(took)) / time.Since(began).Seconds(), took, nil
}
