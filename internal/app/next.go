//go:build quorate_next

package app

import (
	"net/http"

	"quorate/api/neon"
	"quorate/fsm"
)

// next serves what only the version after this one can do: tests of upgrades ask
// for it on the control socket.
func (c *control) next(mux *http.ServeMux) {
	mux.HandleFunc("POST /scheduling", func(w http.ResponseWriter, r *http.Request) {
		policy := neon.NodeScheduling(r.FormValue("policy"))
		_, err := c.replica.Propose(r.Context(), fsm.RequestID{},
			fsm.SetAllScheduling{Scheduling: policy})
		c.answer(w, struct{}{}, err)
	})
}
