// Package freeport finds ports for processes that have to be told theirs before they start.
// Whoever can listen on port 0 does that.
package freeport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
)

// lowest is the first port that is chosen. Up to the ports that the kernel gives away there
// are more than 10,000 by default.
const lowest = 20_000

// tries is how often a port may be taken.
const tries = 100

var (
	mu    sync.Mutex
	given = make(map[int]bool) // to this process
)

// Address is a loopback address, host:port, on which nothing listens. Its port is not one of
// those that the kernel gives to connections and to listeners without one, so that it is still
// free when the process starts, or starts again, on a busy machine. It is given out once.
func Address() (string, error) {
	mu.Lock()
	defer mu.Unlock()
	end := ephemeral()
	for range tries {
		port := 0
		if end > lowest {
			if port = lowest + rand.N(end-lowest); given[port] {
				continue
			}
		}
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		given[l.Addr().(*net.TCPAddr).Port] = true
		return l.Addr().String(), l.Close()
	}
	return "", errors.New("no free port was found")
}

// ephemeral is the first port that the kernel gives away; 0 if that is not known.
func ephemeral() (first int) {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return 0
	}
	if _, err := fmt.Sscan(strings.TrimSpace(string(b)), &first); err != nil {
		return 0
	}
	return first
}
