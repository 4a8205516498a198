package forward

import (
	"bytes"
	"context"
	"net/http"
	"net/url"
	"strings"
)

const (
	// HopHeader marks a request that another replica has forwarded.
	HopHeader = "X-Quorate-Hop"

	// RetryHeader marks the refusal of a forwarded request that the replica it came
	// from should repeat. Its value is the class of the error.
	RetryHeader = "X-Quorate-Again"
)

// nameHeaders name a request. The leader must find the same.
var nameHeaders = []string{"X-Request-Id", "Idempotency-Key"}

// Forwarded reports whether another replica has forwarded the request here.
func Forwarded(r *http.Request) bool { return r.Header.Get(HopHeader) != "" }

// copyRequest copies a request for the replica at an address.
func copyRequest(ctx context.Context, r Request, address string) (*http.Request, error) {
	base, err := url.Parse(strings.TrimSuffix(address, "/"))
	if err != nil {
		return nil, err
	}
	from := r.HTTP
	target := &url.URL{
		Scheme: base.Scheme, Host: base.Host,
		Path: base.Path + from.URL.Path, RawPath: base.EscapedPath() + from.URL.EscapedPath(),
		RawQuery: from.URL.RawQuery, ForceQuery: from.URL.ForceQuery,
	}
	req, err := http.NewRequestWithContext(ctx, from.Method, target.String(),
		bytes.NewReader(r.Body))
	if err != nil {
		return nil, err
	}
	req.Header = EndToEnd(from.Header)
	for _, name := range nameHeaders { // also if Connection lists them
		if values := from.Header[name]; values != nil {
			req.Header[name] = values
		}
	}
	req.Header.Del(RetryHeader)
	req.Header.Set(HopHeader, "1")
	if req.Header["User-Agent"] == nil {
		req.Header["User-Agent"] = []string{""} // otherwise net/http adds its own
	}
	return req, nil
}

// connectionHeaders are about one connection and end with it.
var connectionHeaders = []string{
	"Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection",
	"Te", "Trailer", "Transfer-Encoding", "Upgrade", "Expect",
}

// EndToEnd copies the headers that are meant for the other end, not for the next hop.
func EndToEnd(h http.Header) http.Header {
	out := h.Clone()
	for _, list := range h["Connection"] {
		for name := range strings.SplitSeq(list, ",") {
			out.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range connectionHeaders {
		out.Del(name)
	}
	return out
}
