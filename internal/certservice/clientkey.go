package certservice

import (
	"crypto/sha256"
	"crypto/tls"
	"net/netip"

	"github.com/certfetcher/certfetcher/internal/program"
)

// clientKey tells clients apart where something is shared out among them. The certificate alone does not do: all pods of
// a namespace may show the same one.
type clientKey struct {
	address     netip.Addr
	certificate [32]byte // SHA-256; zero: it showed none
}

// clientOf is the client at a host:port, with the certificate that it showed, trusted or not; a nil state has none.
func clientOf(state *tls.ConnectionState, remote string) clientKey {
	client := clientKey{address: program.ClientAddress(remote)}
	if state != nil && len(state.PeerCertificates) > 0 {
		client.certificate = sha256.Sum256(state.PeerCertificates[0].Raw)
	}
	return client
}
