package freeport

import (
	"net"
	"strconv"
	"testing"
)

// TestAPortIsFreeAndNotOneThatTheKernelGivesAway: else a connection of somebody else may have it
// when the process starts.
func TestAPortIsFreeAndNotOneThatTheKernelGivesAway(t *testing.T) {
	end := ephemeral()
	if end <= lowest {
		t.Logf("the kernel gives away ports from %d on", end)
	}
	seen := map[string]bool{}
	for range 200 {
		addr, err := Address()
		if err != nil {
			t.Fatal(err)
		}
		if seen[addr] {
			t.Errorf("%s is given twice", addr)
		}
		seen[addr] = true
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		_, text, _ := net.SplitHostPort(addr)
		if port, _ := strconv.Atoi(text); end > lowest && (port < lowest || port >= end) {
			t.Errorf("port %d, the kernel gives away those from %d on", port, end)
		}
	}
}
