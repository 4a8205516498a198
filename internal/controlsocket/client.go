package controlsocket

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"quorate/api/neon"
	"quorate/cluster"
	"quorate/internal/jsonhttp"
)

// Client reaches the replica that runs on a data directory of this machine.
type Client struct {
	dir  string
	http *http.Client
}

// Dial makes the client of the socket in a data directory. It connects with each call.
func Dial(dataDir string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		path, release, err := address(dataDir)
		if err != nil {
			return nil, &dialError{err}
		}
		defer release()
		var d net.Dialer
		conn, err := d.DialContext(ctx, "unix", path)
		if err != nil {
			return nil, &dialError{err}
		}
		return conn, nil
	}
	return &Client{dir: dataDir, http: &http.Client{
		Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true},
		Timeout:   timeout,
	}}
}

// dialError marks an error from before there was a connection.
type dialError struct{ err error }

func (e *dialError) Error() string { return e.err.Error() }

func (e *dialError) Unwrap() error { return e.err }

// Members lists the members as the replica sees them.
func (c *Client) Members(ctx context.Context) (view neon.Cluster, err error) {
	return view, c.call(ctx, http.MethodGet, "/members", nil, &view)
}

// AddMember adds a replica to the cluster, on the leader. It returns when the
// newcomer has caught up and votes, or, as a standby, when it is a member.
func (c *Client) AddMember(
	ctx context.Context, m neon.MemberAdd,
) (added neon.MemberAdded, err error) {
	return added, c.call(ctx, http.MethodPost, "/members", m, &added)
}

// ReplaceMember adds a replica, and then removes another one, on the leader.
func (c *Client) ReplaceMember(
	ctx context.Context, old string, m neon.MemberAdd,
) (added neon.MemberAdded, err error) {
	return added, c.call(ctx, http.MethodPost, "/members/"+url.PathEscape(old)+"/replace", m,
		&added)
}

// RemoveMember removes a replica from the cluster, on the leader.
func (c *Client) RemoveMember(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodDelete, "/members/"+url.PathEscape(id), nil, nil)
}

// TransferLeadership hands leadership to a member, on the leader; empty means
// the most up to date one.
func (c *Client) TransferLeadership(ctx context.Context, to string) error {
	return c.call(ctx, http.MethodPost, "/transfer?to="+url.QueryEscape(to), nil, nil)
}

// Snapshot saves a snapshot of the replica's state to w, and describes it.
func (c *Client) Snapshot(
	ctx context.Context, mode cluster.SaveMode, w io.Writer,
) (info cluster.SnapshotInfo, err error) {
	path := "/snapshot"
	if mode == cluster.SaveStale {
		path += "?stale=true"
	}
	resp, err := jsonhttp.Open(ctx, c.http, request(http.MethodGet, path, nil))
	if err != nil {
		return info, c.failed(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode/100 != 2 {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, longestRefusal))
		return info, refusal(text)
	}
	if err := json.Unmarshal([]byte(resp.Header.Get(infoHeader)), &info); err != nil {
		return info, fmt.Errorf("the description of the snapshot: %w", err)
	}
	if _, err := io.Copy(w, resp.Body); err != nil {
		return info, fmt.Errorf("the snapshot is not complete: %w", err)
	}
	return info, nil
}

// longestRefusal bounds what an error repeats of an answer, in bytes.
const longestRefusal = 1 << 16

func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	a, err := jsonhttp.Do(ctx, c.http, request(method, path, in))
	var e *jsonhttp.Error
	switch {
	case errors.As(err, &e) && e.Step == jsonhttp.Send:
		return c.failed(err)
	case err != nil:
		return err
	case !a.OK():
		return refusal(a.Body)
	case out == nil:
		return nil
	}
	return a.Decode(out)
}

func request(method, path string, in any) jsonhttp.Request {
	return jsonhttp.Request{Method: method, URL: "http://replica" + path, Body: in}
}

// failed is the error of a command that got no answer. After a connection there was a
// replica, and it may go on with the command.
func (c *Client) failed(err error) error {
	var dial *dialError
	if errors.As(err, &dial) {
		return unreachable(c.dir, dial.err)
	}
	return fmt.Errorf("the replica took the command and did not answer, so it may still go on "+
		"with it: %w", err)
}

func refusal(text []byte) error {
	return errors.New(strings.TrimSpace(string(text[:min(len(text), longestRefusal)])))
}
