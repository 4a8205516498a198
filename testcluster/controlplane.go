package testcluster

import (
	"context"
	"net/http"
	"sync"
	"time"

	"quorate/testcluster/simpageserver"
)

// controlPlane is the simulated control plane that controllers notify.
type controlPlane struct {
	hook   *simpageserver.Hook // nil without Builder.Hook
	server *http.Server
	url    string // empty without
	done   sync.WaitGroup
}

// Hook is the simulated control plane; nil without Builder.Hook.
func (p *controlPlane) Hook() *simpageserver.Hook { return p.hook }

// serve starts it.
func (p *controlPlane) serve(n *network, opt simpageserver.HookOptions) error {
	l, err := n.listen("hook", "80", "")
	if err != nil {
		return err
	}
	p.hook = simpageserver.NewHook(opt)
	p.url = "http://" + l.Addr().String()
	p.server = &http.Server{Handler: p.hook, ReadHeaderTimeout: 10 * time.Second}
	p.done.Go(func() { _ = p.server.Serve(l) })
	return nil
}

func (p *controlPlane) close(ctx context.Context) {
	if p.hook != nil {
		_ = p.server.Shutdown(ctx)
		p.hook.Close()
		p.done.Wait()
	}
}
