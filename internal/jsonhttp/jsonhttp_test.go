package jsonhttp_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"quorate/internal/jsonhttp"
)

func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server.URL
}

// cut answers with a status, and breaks off in the middle of the body.
func cut(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, `{"whole":true}`)
	}
}

func failed(t *testing.T, err error, at jsonhttp.Step) *jsonhttp.Error {
	t.Helper()
	var e *jsonhttp.Error
	if !errors.As(err, &e) || e.Step != at {
		t.Fatalf("error %#v, want one at step %d", err, at)
	}
	return e
}

func TestRequestIsSentAsAsked(t *testing.T) {
	got := make(chan string, 1)
	url := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- fmt.Sprintf("%s %s [%s] [%s] [%s] %d %s", r.Method, r.URL,
			r.Header.Get("Authorization"), r.Header.Get("Content-Type"),
			r.Header.Get("X-Request-Id"), r.ContentLength, body)
	})
	for _, c := range []struct {
		request jsonhttp.Request
		want    string
	}{
		{jsonhttp.Request{Method: "GET", URL: url + "/a?b=c"}, "GET /a?b=c [] [] [] 0 "},
		{
			jsonhttp.Request{
				Method: "PUT", URL: url + "/", Token: "secret", Body: map[string]int{"n": 1},
				Header: http.Header{"X-Request-Id": {"7"}},
			},
			`PUT / [Bearer secret] [application/json] [7] 7 {"n":1}`,
		},
		{
			jsonhttp.Request{Method: "POST", URL: url + "/", Body: jsonhttp.Null},
			"POST / [] [application/json] [] 4 null",
		},
	} {
		if _, err := jsonhttp.Do(t.Context(), http.DefaultClient, c.request); err != nil {
			t.Error(err)
		}
		if asked := <-got; asked != c.want {
			t.Errorf("asked %s, want %s", asked, c.want)
		}
	}
}

func TestAnswerIsReadToItsEndWhateverItsStatus(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			w.WriteHeader(http.StatusConflict)
		}
		_, _ = io.WriteString(w, `{"msg":"here"}`+"\n")
	})
	for path, status := range map[string]int{"/yes": 200, "/no": 409} {
		a, err := jsonhttp.Do(t.Context(), http.DefaultClient,
			jsonhttp.Request{Method: "GET", URL: url + path})
		var v struct{ Msg string }
		if err != nil || a.Status != status || a.OK() != (status == 200) ||
			a.Decode(&v) != nil || v.Msg != "here" {
			t.Errorf("%s: %d %s, %v", path, a.Status, a.Body, err)
		}
		if msg, ok := a.Message(); msg != "here" || !ok {
			t.Errorf("%s: message %q, %t", path, msg, ok)
		}
	}
}

func TestCutAnswerIsAnErrorWhateverItsStatus(t *testing.T) {
	for _, status := range []int{200, 409, 503} {
		a, err := jsonhttp.Do(t.Context(), http.DefaultClient,
			jsonhttp.Request{Method: "GET", URL: serve(t, cut(status))})
		e := failed(t, err, jsonhttp.Read)
		if a.Status != status || e.Status != status || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d: answer %d, error %d %v", status, a.Status, e.Status, err)
		}
	}
}

func TestCutChunkedAnswerIsAnError(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"whole":true}`)
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	_, err := jsonhttp.Do(t.Context(), http.DefaultClient,
		jsonhttp.Request{Method: "GET", URL: url})
	failed(t, err, jsonhttp.Read)
}

func TestAnswerLongerThanItsLimitIsAnErrorUnlessItRefuses(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			w.WriteHeader(http.StatusConflict)
		}
		_, _ = io.WriteString(w, strings.Repeat("x", jsonhttp.DefaultLimit+1))
	})
	r := jsonhttp.Request{Method: "GET", URL: url}
	_, err := jsonhttp.Do(t.Context(), http.DefaultClient, r)
	var long *jsonhttp.TooLongError
	if failed(t, err, jsonhttp.Read); !errors.As(err, &long) ||
		long.Limit != jsonhttp.DefaultLimit {
		t.Errorf("error %v", err)
	}
	r.Limit = 2 * jsonhttp.DefaultLimit
	a, err := jsonhttp.Do(t.Context(), http.DefaultClient, r)
	if err != nil || len(a.Body) != jsonhttp.DefaultLimit+1 {
		t.Errorf("with a higher limit: %d bytes, %v", len(a.Body), err)
	}
	r.URL += "/no"
	a, err = jsonhttp.Do(t.Context(), http.DefaultClient, r)
	if err != nil || a.Status != http.StatusConflict || len(a.Body) != jsonhttp.DefaultLimit {
		t.Errorf("refusal: %d with %d bytes, %v", a.Status, len(a.Body), err)
	}
}

func TestErrorsSayWhatHappened(t *testing.T) {
	gone, stop := context.WithCancel(t.Context())
	stop()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := "http://" + ln.Addr().String()
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		ctx     context.Context
		request jsonhttp.Request
		step    jsonhttp.Step
		is      error
	}{
		"body":      {t.Context(), jsonhttp.Request{Body: func() {}}, jsonhttp.Prepare, nil},
		"address":   {t.Context(), jsonhttp.Request{URL: "http://%"}, jsonhttp.Prepare, nil},
		"dial":      {t.Context(), jsonhttp.Request{URL: dead}, jsonhttp.Send, nil},
		"cancelled": {gone, jsonhttp.Request{URL: dead}, jsonhttp.Send, context.Canceled},
	} {
		c.request.Method = "PUT"
		_, err := jsonhttp.Do(c.ctx, http.DefaultClient, c.request)
		e := failed(t, err, c.step)
		if c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s: error %v, want %v", name, err, c.is)
		}
		if n := strings.Count(err.Error(), "PUT "); n != 1 || strings.Contains(e.Err.Error(), "PUT ") {
			t.Errorf("%s: %d times the method in %q", name, n, err)
		}
	}
}

func TestRedirectIsNotFollowed(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	})
	client := &http.Client{CheckRedirect: jsonhttp.StayHere}
	a, err := jsonhttp.Do(t.Context(), client, jsonhttp.Request{Method: "GET", URL: url})
	if err != nil || a.Status != http.StatusTemporaryRedirect || a.OK() {
		t.Errorf("answer %d, %v", a.Status, err)
	}
}

func TestOpenedAnswerCanBeStreamed(t *testing.T) {
	more := make(chan struct{})
	url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "first\n")
		_ = http.NewResponseController(w).Flush()
		<-more
		_, _ = io.WriteString(w, "second\n")
	})
	resp, err := jsonhttp.Open(t.Context(), http.DefaultClient,
		jsonhttp.Request{Method: "GET", URL: url})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	in := bufio.NewReader(resp.Body)
	for _, want := range []string{"first\n", "second\n"} {
		if line, err := in.ReadString('\n'); line != want || err != nil {
			t.Errorf("read %q, %v", line, err)
		}
		if want == "first\n" {
			close(more)
		}
	}
}

func TestMessageOfAStrangerIsNone(t *testing.T) {
	for _, body := range []string{"", "<html>", `{"error":"x"}`, `{"msg":null}`, `[1]`} {
		a := jsonhttp.Answer{Body: []byte(body)}
		if msg, ok := a.Message(); ok {
			t.Errorf("%q: message %q", body, msg)
		}
	}
}
