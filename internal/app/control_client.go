package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"quorate/cluster"
)

// Members lists the members as the replica sees them.
func (c *Control) Members(ctx context.Context) (list []cluster.MemberStatus, err error) {
	return list, c.call(ctx, http.MethodGet, "/members", nil, &list)
}

// AddMember adds a replica to the cluster, on the leader. It returns when the
// newcomer has caught up and votes.
func (c *Control) AddMember(ctx context.Context, m cluster.Member) error {
	return c.call(ctx, http.MethodPost, "/members", m, nil)
}

// RemoveMember removes a replica from the cluster, on the leader.
func (c *Control) RemoveMember(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodDelete, "/members/"+url.PathEscape(id), nil, nil)
}

// TransferLeadership hands leadership to a member, on the leader; empty means
// the most up to date one.
func (c *Control) TransferLeadership(ctx context.Context, to string) error {
	return c.call(ctx, http.MethodPost, "/transfer?to="+url.QueryEscape(to), nil, nil)
}

// Snapshot saves a snapshot of the replica's state to w.
func (c *Control) Snapshot(ctx context.Context, w io.Writer) error {
	resp, err := c.do(ctx, http.MethodGet, "/snapshot", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(w, resp.Body); err != nil {
		return fmt.Errorf("the snapshot is not complete: %w", err)
	}
	return nil
}

func (c *Control) call(ctx context.Context, method, path string, in, out any) error {
	resp, err := c.do(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(out)
}

func (c *Control) do(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body bytes.Buffer
	if in != nil {
		if err := json.NewEncoder(&body).Encode(in); err != nil {
			return nil, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://replica"+path, &body)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("no replica runs on this data directory: %w", err)
	}
	if resp.StatusCode/100 != 2 {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
		_ = resp.Body.Close()
		return nil, errors.New(strings.TrimSpace(string(text)))
	}
	return resp, nil
}
