package client

import (
	"context"
	"net/http"
	"net/url"

	"quorate/api/neon"
)

// Nodes are the calls about pageservers.
type Nodes struct{ c caller }

// NodeOption is a switch of an operation on a node.
type NodeOption string

// The switches.
const (
	// Concurrent begins an operation also while other nodes have one. Only Quorate
	// knows it.
	Concurrent NodeOption = "concurrent"

	// Force deletes a node without warming up secondaries before its shards move.
	Force NodeOption = "force"
)

const nodesPath = "/control/v1/node"

func nodePath(id neon.NodeID) string { return nodesPath + "/" + id.String() }

// begin begins an operation on a node.
func (n Nodes) begin(
	ctx context.Context, id neon.NodeID, operation string, with []NodeOption,
) error {
	q := url.Values{}
	for _, o := range with {
		q.Set(string(o), "true")
	}
	path := withQuery(nodePath(id)+"/"+operation, q)
	return n.c.Call(ctx, http.MethodPut, path, nil, nil)
}

func (n Nodes) cancel(ctx context.Context, id neon.NodeID, operation string) error {
	return n.c.Call(ctx, http.MethodDelete, nodePath(id)+"/"+operation, nil, nil)
}

// Register makes a pageserver known.
func (n Nodes) Register(ctx context.Context, req neon.NodeRegister) error {
	return n.c.Call(ctx, http.MethodPost, nodesPath, req, nil)
}

// List lists the pageservers by id.
func (n Nodes) List(ctx context.Context) (list []neon.NodeDescribe, err error) {
	return list, n.c.Call(ctx, http.MethodGet, nodesPath, nil, &list)
}

// Get describes one pageserver.
func (n Nodes) Get(ctx context.Context, id neon.NodeID) (d neon.NodeDescribe, err error) {
	return d, n.c.Call(ctx, http.MethodGet, nodePath(id), nil, &d)
}

// Shards lists the shards with a location on a pageserver.
func (n Nodes) Shards(ctx context.Context, id neon.NodeID) (s neon.NodeShards, err error) {
	return s, n.c.Call(ctx, http.MethodGet, nodePath(id)+"/shards", nil, &s)
}

// Configure changes the availability or the scheduling of a pageserver.
func (n Nodes) Configure(ctx context.Context, req neon.NodeConfigure) error {
	return n.c.Call(ctx, http.MethodPut, nodePath(req.ID)+"/config", req, nil)
}

// Drain begins to move the attached shards of a pageserver away. It ends with the
// scheduling policy PauseForRestart.
func (n Nodes) Drain(ctx context.Context, id neon.NodeID, with ...NodeOption) error {
	return n.begin(ctx, id, "drain", with)
}

// CancelDrain ends a drain.
func (n Nodes) CancelDrain(ctx context.Context, id neon.NodeID) error {
	return n.cancel(ctx, id, "drain")
}

// Fill begins to bring attached shards to a pageserver. It ends with the scheduling
// policy Active.
func (n Nodes) Fill(ctx context.Context, id neon.NodeID, with ...NodeOption) error {
	return n.begin(ctx, id, "fill", with)
}

// CancelFill ends a fill.
func (n Nodes) CancelFill(ctx context.Context, id neon.NodeID) error {
	return n.cancel(ctx, id, "fill")
}

// Delete begins to delete a pageserver, from which all shards are moved first.
func (n Nodes) Delete(ctx context.Context, id neon.NodeID, with ...NodeOption) error {
	return n.begin(ctx, id, "delete", with)
}

// CancelDelete ends a deletion that has not come to its end.
func (n Nodes) CancelDelete(ctx context.Context, id neon.NodeID) error {
	return n.cancel(ctx, id, "delete")
}

// DeleteNow deletes a pageserver in one request, which is the older way.
func (n Nodes) DeleteNow(ctx context.Context, id neon.NodeID) error {
	return n.c.Call(ctx, http.MethodDelete, nodePath(id), nil, nil)
}

// Drop makes the controller forget a pageserver, whichever shards are on it.
func (n Nodes) Drop(ctx context.Context, id neon.NodeID) error {
	return n.c.Call(ctx, http.MethodPost, "/debug/v1/node/"+id.String()+"/drop", nil, nil)
}

// Operations lists the drains, fills and deletions under way.
func (n Nodes) Operations(ctx context.Context) (list []neon.NodeOperation, err error) {
	return list, n.c.Call(ctx, http.MethodGet, "/debug/v1/operation", nil, &list)
}

// EndedOperations lists how drains, fills and deletions have ended, the latest first.
func (n Nodes) EndedOperations(
	ctx context.Context,
) (list []neon.EndedNodeOperation, err error) {
	return list, n.c.Call(ctx, http.MethodGet, "/debug/v1/operation?ended=true", nil, &list)
}

// Tombstones lists the deleted pageservers. They may not register again.
func (n Nodes) Tombstones(ctx context.Context) (list []neon.NodeDescribe, err error) {
	return list, n.c.Call(ctx, http.MethodGet, "/debug/v1/tombstone", nil, &list)
}

// DeleteTombstone lets a deleted pageserver register again.
func (n Nodes) DeleteTombstone(ctx context.Context, id neon.NodeID) error {
	return n.c.Call(ctx, http.MethodDelete, "/debug/v1/tombstone/"+id.String(), nil, nil)
}
