// Package resolver resolves names for tests without the machine's name servers.
package resolver

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
)

// New returns a resolver that knows the IPv4 addresses of some names, and of no other name.
func New(t testing.TB, names map[string][]string) *net.Resolver {
	t.Helper()
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	go func() {
		query := make([]byte, 512)
		for {
			n, from, err := server.ReadFrom(query)
			if err != nil {
				return
			}
			server.WriteTo(answer(query[:n], names), from)
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", server.LocalAddr().String())
	}}
}

// answer is a DNS message (RFC 1035, section 4) for one with a single question.
func answer(query []byte, names map[string][]string) []byte {
	var labels []string
	end := 12
	for ; query[end] != 0; end += int(query[end]) + 1 {
		labels = append(labels, string(query[end+1:end+1+int(query[end])]))
	}
	end += 5 // the root's label, type and class
	addresses, known := names[strings.Join(labels, ".")]
	head := []byte{query[0], query[1], 0x81, 0x83, 0, 1, 0, 0, 0, 0, 0, 0} // NXDOMAIN
	var records []byte
	if known {
		head[3] = 0x80
		if isA := query[end-3] == 1; isA {
			head[7] = byte(len(addresses))
			for _, text := range addresses {
				address := netip.MustParseAddr(text).As4()
				records = append(append(records, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4), address[:]...)
			}
		}
	}
	return append(append(head, query[12:end]...), records...)
}
