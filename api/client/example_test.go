package client_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	"quorate/api/client"
	"quorate/api/neon"
)

// serve is a controller with one pageserver that is being drained. It has just
// lost its leader.
func serve() *httptest.Server {
	leader := false
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !leader {
			leader = true
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		if r.URL.Path != "/control/v1/node/1" {
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"msg":"Node 2 not registered"}`)
			return
		}
		fmt.Fprint(w, `{"id":1,"availability":"Active","scheduling":"Draining"}`)
	}))
}

func Example() {
	server := serve()
	defer server.Close()

	c := client.New(client.Options{
		Address: client.At(server.URL), // of several replicas, name all
		Retry:   client.RetryUnavailable,
	})
	defer c.Close()

	node, err := c.Nodes().Get(context.Background(), 1)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(node.Scheduling == neon.SchedulingDraining)
	// Output: true
}

// Without Retry, a call is one request: the caller decides what its failure means.
func Example_errors() {
	server := serve()
	defer server.Close()

	c := client.New(client.Options{Address: client.At(server.URL)})
	defer c.Close()

	_, err := c.Nodes().Get(context.Background(), 2)
	fmt.Println(client.StatusOf(err))
	_, err = c.Nodes().Get(context.Background(), 2)
	fmt.Println(err)
	// Output:
	// 503
	// GET /control/v1/node/2: status 404: Node 2 not registered
}

// Call is for routes that have no method of their own.
func ExampleClient_Call() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `{"attachment":[7,1]}`)
	}))
	defer server.Close()

	c := client.New(client.Options{Address: client.At(server.URL)})
	defer c.Close()

	var answer struct {
		Attachment []uint64 `json:"attachment"`
	}
	err := c.Call(context.Background(), http.MethodPost, "/debug/v1/inspect",
		neon.InspectRequest{}, &answer)
	fmt.Println(answer.Attachment, err)
	// Output: [7 1] <nil>
}
