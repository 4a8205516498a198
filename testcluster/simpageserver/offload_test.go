package simpageserver

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"quorate/testcluster/simpageserver/archival"
)

const archivalStep = 10 * time.Millisecond

// archivist is one pageserver with an archived timeline, in a bubble.
type archivist struct {
	*testing.T
	fleet *Fleet
	node  *Node
	path  string
}

func newArchivist(t *testing.T, order archival.Order) *archivist {
	mem := &memNet{listeners: map[string]*memListener{}}
	f := NewFleet(Options{Behaviour: Behaviour{OffloadOrder: order, ArchivalStep: archivalStep}})
	n, err := f.AddNode(NodeOptions{ID: 1, Listen: mem.listen("ps-1:9898")})
	if err != nil {
		t.Fatal(err)
	}
	a := &archivist{
		T: t, fleet: f, node: n,
		path: "/v1/tenant/" + shardOf(0).String() + "/timeline/" + timelineOf(1).String(),
	}
	if err := n.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	a.do("PUT", locationPath(shardOf(0)), confOf(shardOf(0), "AttachedSingle", 1), 200)
	a.do("POST", "/v1/tenant/"+shardOf(0).String()+"/timeline",
		fmt.Sprintf(`{"new_timeline_id":%q}`, timelineOf(1)), 201)
	a.do("PUT", a.path+"/archival_config", `{"state":"Archived"}`, 200)
	return a
}

// ask sends one request.
func (a *archivist) ask(method, path, body string) (int, string) {
	rec := httptest.NewRecorder()
	a.node.Handler().ServeHTTP(rec, httptest.NewRequest(method, path, strings.NewReader(body)))
	return rec.Code, rec.Body.String()
}

func (a *archivist) do(method, path, body string, want int) string {
	a.Helper()
	status, text := a.ask(method, path, body)
	if status != want {
		a.Errorf("%s %s: %d %s, want %d", method, path, status, text, want)
	}
	return text
}

// race brings the timeline back a while after its offload has begun, as often as it
// takes, and tells what became of it.
func (a *archivist) race(after time.Duration) error {
	var offload sync.WaitGroup
	offload.Go(func() { a.ask("PUT", a.path+"/offload", "") })
	time.Sleep(after)
	for range 100 {
		status, text := a.ask("PUT", a.path+"/archival_config", `{"state":"Unarchived"}`)
		if status == 200 {
			break
		}
		if status != 503 && status != 409 {
			a.Errorf("unarchive: %d %s", status, text)
		}
		time.Sleep(archivalStep)
	}
	offload.Wait()
	return a.fleet.CheckArchived(timelineOf(1), false, shardOf(0))
}

// TestUnarchiveAgainstOffload lets a request to bring a timeline back arrive at every
// moment of its offload. With the old order some moment strands it; with the arbiter
// none does.
func TestUnarchiveAgainstOffload(t *testing.T) {
	for order, safe := range map[archival.Order]bool{
		archival.Arbiter: true, archival.StopFirst: false,
	} {
		stranded := 0
		for at := range 14 {
			synctest.Test(t, func(t *testing.T) {
				a := newArchivist(t, order)
				defer a.fleet.Close()
				err := a.race(time.Duration(at) * archivalStep / 2)
				if err != nil && safe {
					t.Errorf("after %d half steps: %v", at, err)
				}
				if err != nil {
					stranded++
				}
			})
		}
		if !safe && stranded == 0 {
			t.Error("the old order strands nothing")
		}
	}
}

// TestOffloadedTimelines: what requests see of a timeline that is offloaded, and that
// it comes back with the next attach and with a request.
func TestOffloadedTimelines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newArchivist(t, archival.Arbiter)
		defer a.fleet.Close()
		all := "/v1/tenant/" + shardOf(0).String() + "/timeline"
		a.do("PUT", a.path+"/offload", "", 200)
		check := func() {
			t.Helper()
			a.do("GET", a.path, "", 404)
			a.do("PUT", a.path+"/archival_config", `{"state":"Archived"}`, 200)
			a.do("POST", all, fmt.Sprintf(`{"new_timeline_id":%q}`, timelineOf(1)), 409)
			a.do("POST", all, fmt.Sprintf(`{"new_timeline_id":%q,"ancestor_timeline_id":%q}`,
				timelineOf(2), timelineOf(1)), 406)
			var got struct{ Timelines, Offloaded []any }
			if err := json.Unmarshal([]byte(a.do("GET", all+"_and_offloaded", "", 200)),
				&got); err != nil || len(got.Timelines) != 0 || len(got.Offloaded) != 1 {
				t.Errorf("%+v %v", got, err)
			}
		}
		check()
		a.do("PUT", locationPath(shardOf(0)), confOf(shardOf(0), "AttachedSingle", 2), 200)
		check()
		a.do("PUT", a.path+"/archival_config", `{"state":"Unarchived"}`, 200)
		a.do("GET", a.path, "", 200)
		a.do("PUT", a.path+"/offload", "", 412)
		a.do("PUT", a.path+"/archival_config", `{"state":"Archived"}`, 200)
		a.do("PUT", a.path+"/offload", "", 200)
		a.do("DELETE", a.path, "", 202)
		a.do("DELETE", a.path, "", 404)
		a.do("POST", all, fmt.Sprintf(`{"new_timeline_id":%q}`, timelineOf(1)), 201)
		a.do("PUT", locationPath(shardOf(0)), confOf(shardOf(0), "AttachedSingle", 3), 200)
		a.do("GET", a.path, "", 200)
	})
}
