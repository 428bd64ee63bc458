package certservice

import (
	"crypto/sha256"
	"crypto/x509"
	"net/netip"
)

// clientKey tells clients apart where something is shared out among them. The certificate alone does not do: all pods of
// a namespace may show the same one.
type clientKey struct {
	address     netip.Addr
	certificate [32]byte // SHA-256, once it is verified
}

// clientOf is the client that sent a request, with the certificate that it showed.
func clientOf(certificate *x509.Certificate, remote string) clientKey {
	return clientKey{address: addressOf(remote), certificate: sha256.Sum256(certificate.Raw)}
}

// addressOf is the address of a client without its port; the zero one where the network has other addresses.
func addressOf(remote string) netip.Addr {
	address, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	return address.Addr().Unmap()
}
