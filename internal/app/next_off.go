//go:build !quorate_next

package app

import "net/http"

// next serves what only the version after this one can do.
func (c *control) next(*http.ServeMux) {}
