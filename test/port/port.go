// Package port finds ports on loopback on which nobody listens, for tests that need to know one before
// somebody does, or for as long as nobody may.
package port

import (
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"testing"
)

// Ports below 32768 are those that no kernel gives out by itself: one of those it would give to a connection
// of another test as soon as it is closed.
const (
	first = 20000
	count = 10000
	each  = 64 // for each process, in turn
)

var taken atomic.Int64

// Free returns an address, such as 127.0.0.1:20000, on which nobody listens. It gives none twice.
func Free(t testing.TB) string {
	t.Helper()
	for range count {
		n := os.Getpid()*each + int(taken.Add(1))
		address := fmt.Sprintf("127.0.0.1:%d", first+n%count)
		if listener, err := net.Listen("tcp", address); err == nil {
			listener.Close()
			return address
		}
	}
	t.Fatalf("all ports from %d to %d are in use", first, first+count-1)
	return ""
}
