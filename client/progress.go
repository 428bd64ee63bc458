package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http/httptrace"
	"sync/atomic"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// stage is how far a try has come, which a time-out alone does not tell.
type stage int32

const (
	stageConnect stage = iota // name and TCP
	stageTLS
	stageRequest // sent or being sent, nothing has come back
	stageAnswer  // the first byte of the answer is there
)

// progress is what the layers below report of one try.
type progress struct {
	reached   atomic.Int32
	ahead     atomic.Pointer[progress] // of the connection under way that this try waits for
	madeAhead atomic.Bool              // the connection was set up before the try began

	asked   atomic.Bool                  // the server asked for the client certificate
	tunnel  atomic.Pointer[net.Conn]     // to the proxy, through which the transport itself makes TLS
	unasked atomic.Pointer[unaskedError] // why the tunnel was closed
}

func (p *progress) stage() stage {
	if reached := stage(p.reached.Load()); reached != stageConnect {
		return reached
	}
	if a := p.ahead.Load(); a != nil {
		return a.stage()
	}
	return stageConnect
}

func (p *progress) reach(s stage) { p.reached.Store(int32(s)) }

func (c *Client) trace(p *progress) *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		TLSHandshakeStart: func() {
			p.reach(stageTLS)
			p.asked.Store(false) // a proxy at the same address may have asked, on the way
		},
		TLSHandshakeDone:     c.afterTLSToProxy(p),
		GotConn:              func(httptrace.GotConnInfo) { p.reach(stageRequest) },
		GotFirstResponseByte: func() { p.reach(stageAnswer) },
	}
}

type progressKey struct{}

func withProgress(ctx context.Context, p *progress) context.Context {
	return context.WithValue(ctx, progressKey{}, p)
}

// progressOf returns a progress that no one reads when ctx has none.
func progressOf(ctx context.Context) *progress {
	if p, ok := ctx.Value(progressKey{}).(*progress); ok {
		return p
	}
	return &progress{}
}

// A request carries a private key. Where we have a client certificate, it goes only to a server that has asked for it
// in TLS, as a CertService does: one that does not ask is something else, or something on the way ends TLS and reads
// along. Each connection makes a full handshake, because in a resumed session a server does not ask again.

// unaskedError is a trusted server that did not ask for our certificate.
type unaskedError struct{ peer *x509.Certificate }

func (e *unaskedError) Error() string {
	return fmt.Sprintf("the server with the certificate of subject %q, issuer %q, sent no certificate request",
		pki.DN(e.peer.RawSubject), pki.DN(e.peer.RawIssuer))
}

var explainUnasked = explanation{
	problem: "the server never asked for our client certificate, so nothing was sent to it",
	advice: "something on the way ends TLS (a proxy, a load balancer, a service mesh), or this is not a CertService: " +
		"have TLS passed through to the CertService, check REQUEST_URL and HTTPS_PROXY, " +
		"or set ALLOW_NO_CLIENT_AUTH=true if this is meant",
	permanent: true,
}

// noteWhenAsked has each handshake note whether the server asks for the client certificate, and makes each a full one.
func (c *Client) noteWhenAsked(allowed bool) {
	show, certificates := c.tls.GetClientCertificate, c.tls.Certificates
	if show == nil && len(certificates) == 0 {
		return // this is not mutual TLS
	}
	c.needAsked = !allowed
	c.tls.ClientSessionCache, c.tls.SessionTicketsDisabled = nil, true
	c.tls.Renegotiation = tls.RenegotiateNever
	c.tls.GetClientCertificate = func(request *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		progressOf(request.Context()).asked.Store(true)
		if show != nil {
			return show(request)
		}
		for i := range certificates {
			if request.SupportsCertificate(&certificates[i]) == nil {
				return &certificates[i], nil
			}
		}
		return new(tls.Certificate), nil
	}
}

// dialProxy is the transport's way to a proxy that does not speak TLS itself.
func (c *Client) dialProxy(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := c.dialer.DialContext(ctx, network, addr)
	if err == nil {
		progressOf(ctx).tunnel.Store(&conn)
	}
	return conn, err
}

// afterTLSToProxy returns what the transport calls when it has made TLS through a proxy, before it writes the request.
// It closes the tunnel to a server that did not ask, so that no byte of the request can leave.
func (c *Client) afterTLSToProxy(p *progress) func(tls.ConnectionState, error) {
	return func(state tls.ConnectionState, err error) {
		if err != nil || !c.needAsked || p.asked.Load() {
			return
		}
		p.unasked.Store(&unaskedError{state.PeerCertificates[0]})
		if tunnel := p.tunnel.Load(); tunnel != nil {
			(*tunnel).Close()
		}
	}
}
