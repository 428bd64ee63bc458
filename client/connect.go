package client

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/certfetcher/certfetcher/internal/stack"
)

const (
	// aheadLife is how long a connection set up ahead is worth using. Servers close connections on
	// which nothing comes; most wait ten seconds or more for the first request.
	aheadLife = 5 * time.Second
	// alertWait bounds how long a failed write waits for the reader to learn the server's reason.
	alertWait = time.Second
)

// ahead holds at most one connection that Connect has made or is making.
type ahead struct {
	mu   sync.Mutex
	dial *dialAhead
}

type dialAhead struct {
	addr     string
	progress progress
	cancel   context.CancelFunc
	done     chan struct{} // closed when conn, err and at are set
	conn     net.Conn
	err      error
	at       time.Time
}

// Connect sets the TCP and TLS connection for the next Enroll up ahead, in the background, so that
// it overlaps with making the key. It reports no error: the request will meet it. It does nothing
// when a proxy applies. A connection that no request takes within a few seconds is closed.
func (c *Client) Connect(ctx context.Context) {
	if proxy, err := c.proxy(&http.Request{URL: c.enrollURL}); proxy != nil || err != nil {
		return
	}
	d := &dialAhead{addr: hostPort(c.enrollURL), done: make(chan struct{})}
	ctx, d.cancel = c.withTimeout(ctx)
	c.ahead.swap(d)
	go func() {
		stack.Grow()
		d.conn, d.err = c.dial(withProgress(ctx, &d.progress), d.addr)
		d.at = time.Now()
		d.cancel()
		close(d.done)
		if d.err == nil {
			time.AfterFunc(aheadLife, func() { c.ahead.drop(d) })
		}
	}()
}

// swap puts d in place of what was there, which is closed.
func (a *ahead) swap(d *dialAhead) {
	a.mu.Lock()
	old := a.dial
	a.dial = d
	a.mu.Unlock()
	if old != nil {
		old.abandon()
	}
}

// take hands d out, at most once.
func (a *ahead) take(addr string) *dialAhead {
	a.mu.Lock()
	defer a.mu.Unlock()
	d := a.dial
	if d == nil || d.addr != addr {
		return nil
	}
	a.dial = nil
	return d
}

// drop closes d unless a request has taken it.
func (a *ahead) drop(d *dialAhead) {
	a.mu.Lock()
	mine := a.dial == d
	if mine {
		a.dial = nil
	}
	a.mu.Unlock()
	if mine {
		d.abandon()
	}
}

// abandon gives a dial up that was not handed out, closing its connection now or when it comes.
func (d *dialAhead) abandon() {
	d.cancel()
	go func() {
		<-d.done
		if d.conn != nil {
			d.conn.Close()
		}
	}()
}

// dialTLS is the transport's way to a server (and to a proxy that itself speaks TLS). It uses the
// connection set up ahead where there is one, and waits for one under way.
func (c *Client) dialTLS(ctx context.Context, _, addr string) (net.Conn, error) {
	d := c.ahead.take(addr)
	if d == nil {
		return c.dial(ctx, addr)
	}
	select {
	case <-d.done:
		if d.err != nil || time.Since(d.at) > aheadLife {
			d.abandon() // a failure from before the request was made says nothing about now
			return c.dial(ctx, addr)
		}
	default:
		p := progressOf(ctx)
		p.ahead.Store(&d.progress)
		select {
		case <-d.done:
		case <-ctx.Done():
			d.abandon()
			return nil, ctx.Err()
		}
		if errors.Is(d.err, context.Canceled) || errors.Is(d.err, context.DeadlineExceeded) {
			// Connect's own context ended, which is not the request's. How
			// far it came stays the word on this try until the new dial
			// gets further: both may well end within the same moment.
			return c.dial(ctx, addr)
		}
		if d.err != nil {
			return nil, d.err
		}
	}
	progressOf(ctx).madeAhead.Store(true)
	return d.conn, nil
}

// dial connects to addr and completes the TLS handshake. A proxy is shown no client certificate,
// and what is to be verified of CertService is not verified of it.
func (c *Client) dial(ctx context.Context, addr string) (net.Conn, error) {
	raw, err := c.dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	p := progressOf(ctx)
	p.reach(stageTLS)
	cfg := c.tls.Clone()
	if cfg.ServerName == "" {
		host, _, _ := net.SplitHostPort(addr) // the transport and hostPort make it well-formed
		cfg.ServerName = strings.TrimSuffix(host, ".")
	}
	isProxy := addr != hostPort(c.enrollURL) && (c.updateURL == nil || addr != hostPort(c.updateURL))
	if isProxy {
		cfg.Certificates, cfg.GetClientCertificate, cfg.VerifyConnection = nil, nil, nil
	}
	p.tunnel.Store(&raw)
	conn := tls.Client(raw, cfg)
	if err := conn.HandshakeContext(withProgress(ctx, p)); err != nil {
		raw.Close()
		return nil, err
	}
	if !isProxy && c.needAsked && !p.asked.Load() {
		raw.Close()
		return nil, &unaskedError{conn.ConnectionState().PeerCertificates[0]}
	}
	return &explainingConn{Conn: conn, readFailed: make(chan struct{})}, nil
}

func hostPort(u *url.URL) string { return net.JoinHostPort(u.Hostname(), Port(u)) }

// explainingConn lets a failed write return the alert that explains it. A TLS 1.3 server judges our
// certificate after the handshake is over for us (RFC 8446, section 4.4.2.4), so its alert races
// with the reset that our request provokes on the connection it has closed.
type explainingConn struct {
	*tls.Conn
	once       sync.Once
	readFailed chan struct{}
	readErr    error
}

// Read keeps its first error for Write.
func (c *explainingConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		c.once.Do(func() {
			c.readErr = err
			close(c.readFailed)
		})
	}
	return n, err
}

// Write returns the server's alert in place of its own error when the reader, which the transport
// always keeps waiting, gets one.
func (c *explainingConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if err == nil {
		return n, nil
	}
	timer := time.NewTimer(alertWait)
	defer timer.Stop()
	select {
	case <-c.readFailed:
		if _, ok := alertOf(c.readErr); ok {
			return n, c.readErr
		}
	case <-timer.C:
	}
	return n, err
}
