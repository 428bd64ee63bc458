package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// Retry is when to try again after a failure that may pass: exponentially growing waits, each
// drawn from half to one and a half of its interval, which doubles.
type Retry struct {
	InitialInterval time.Duration // of the first wait
	MaxInterval     time.Duration // the longest wait, jitter included; a Retry-After may be longer
	MaxElapsed      time.Duration // no try begins later than this after the first; zero: no limit
}

// MaxRetryAfter is the longest wait of a Client that a server's Retry-After can ask for.
const MaxRetryAfter = 15 * time.Minute

// maxReported bounds the Retry-After that a StatusError reports to those who wait by themselves:
// what is longer than a day is more likely a mistake.
const maxReported = 24 * time.Hour

// jitter is the share of an interval by which a wait may differ from it.
const jitter = 0.5

// leastSpread is the time over which those are spread whom a server asks to come back after the
// same time: Retry-After has whole seconds.
const leastSpread = time.Second

// Waits draws the waits of one call. Clock and randomness are given, so that many calls can be
// played through in no time.
type Waits struct {
	interval   *backoff.ExponentialBackOff // without its own jitter and limit
	maxElapsed time.Duration
	random     func() float64 // in [0, 1)
	retryAfter time.Duration  // what the last answer asked for
	stopped    bool           // by maxElapsed
}

// NewWaits begins a call now. random returns a number from 0 up to 1, without 1 itself.
func NewWaits(r Retry, now func() time.Time, random func() float64) *Waits {
	longest := time.Duration(float64(r.MaxInterval) / (1 + jitter))
	return &Waits{maxElapsed: r.MaxElapsed, random: random, interval: backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(min(r.InitialInterval, longest)),
		backoff.WithMaxInterval(longest),
		backoff.WithMultiplier(2),
		backoff.WithRandomizationFactor(0),
		backoff.WithMaxElapsedTime(0),
		backoff.WithClockProvider(clock(now)),
	)}
}

// Failed says that a try failed, and how long the server asks to wait before the next one; 0: it
// does not.
func (w *Waits) Failed(retryAfter time.Duration) { w.retryAfter = retryAfter }

// NextBackOff returns the next wait, or backoff.Stop when it would end past MaxElapsed. A server
// that asks for more time than is left gets no further request: an earlier one would disobey it.
func (w *Waits) NextBackOff() time.Duration {
	interval := w.interval.NextBackOff()
	next := interval + time.Duration((2*w.random()-1)*jitter*float64(interval))
	if w.retryAfter > 0 {
		next = max(next, min(SpreadRetryAfter(w.retryAfter, w.random), MaxRetryAfter))
	}
	w.stopped = w.maxElapsed > 0 && w.interval.GetElapsedTime()+next > w.maxElapsed
	if w.stopped {
		return backoff.Stop
	}
	return next
}

// SpreadRetryAfter is a time a little later than a server asks for, so that the clients of one that
// restarts do not all come at once: by up to a tenth, and by up to a second where that is more.
// random is as NewWaits has it.
func SpreadRetryAfter(asked time.Duration, random func() float64) time.Duration {
	return asked + time.Duration(random()*float64(max(leastSpread, asked/10)))
}

// Reset begins again, as backoff.BackOff has it.
func (w *Waits) Reset() { w.interval.Reset() }

type clock func() time.Time

func (c clock) Now() time.Time { return c() }

// do makes the request as often as the configuration allows.
func (c *Client) do(ctx context.Context, operation string, target *url.URL, secrets secretHeaders) (Answer, error) {
	if err := context.Cause(ctx); err != nil {
		return Answer{}, err
	}
	if proxy, err := c.proxy(&http.Request{URL: target}); err == nil && proxy != nil {
		// The ONAP client used none, so an operator who migrates may not know that one applies.
		c.log.LogAttrs(ctx, slog.LevelInfo,
			"the request goes through the proxy of HTTPS_PROXY, as NO_PROXY does not name the host",
			slog.String("proxy", proxy.Scheme+"://"+proxy.Host), slog.String("host", target.Host))
	}
	again := Retrying{Retry: c.retry, Now: c.now, Judge: func(err error) (bool, time.Duration) {
		var status *StatusError
		if errors.As(err, &status) {
			return mayPass(err), status.RetryAfter
		}
		return mayPass(err), 0
	}, Failed: func(try int, err error, wait time.Duration) {
		c.log.LogAttrs(ctx, slog.LevelWarn, "CertService request failed, trying again",
			slog.String("operation", operation),
			slog.Int("try", try), slog.String("error", err.Error()), slog.Duration("next_in", wait))
	}}
	return Try(ctx, again, func() (Answer, error) { return c.try(ctx, target, secrets) })
}

// Retrying is how Try tries again.
type Retrying struct {
	*Retry // nil: one try
	Now    func() time.Time
	// Judge tells of an error whether another try may succeed, and for how long the server asks to
	// wait before it.
	Judge func(error) (mayPass bool, retryAfter time.Duration)
	// Failed is called before each wait.
	Failed func(try int, err error, wait time.Duration)
}

// Try does something until it succeeds, an error is one for good, or the time is up. Its error is,
// or wraps, that of the last try, or the cause of ctx when that ended.
func Try[T any](ctx context.Context, r Retrying, try func() (T, error)) (result T, err error) {
	if r.Retry == nil {
		if result, err = try(); err != nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return result, err
	}
	w := NewWaits(*r.Retry, r.Now, rand.Float64)
	tries := 0
	var last error
	result, err = backoff.RetryNotifyWithData(func() (T, error) {
		tries++
		result, err := try()
		if err == nil {
			return result, nil
		}
		last = err
		again, retryAfter := r.Judge(err)
		if w.Failed(retryAfter); !again {
			err = backoff.Permanent(err)
		}
		return result, err
	}, backoff.WithContext(w, ctx), func(err error, wait time.Duration) { r.Failed(tries, err, wait) })
	switch {
	case err == nil:
		return result, nil
	case ctx.Err() != nil:
		cause := context.Cause(ctx)
		if last == nil || errors.Is(last, cause) {
			return result, cause
		}
		return result, fmt.Errorf("%w; before that, try %d failed: %v", cause, tries, last)
	case w.stopped:
		effort := fmt.Sprintf("%d tries in %s", tries, w.interval.GetElapsedTime().Round(time.Millisecond))
		if tries == 1 {
			effort = "one try"
		}
		if w.retryAfter > 0 {
			return result, fmt.Errorf("giving up after %s, as the server asks to wait another %s: %w", effort,
				w.retryAfter, err)
		}
		return result, fmt.Errorf("giving up after %s: %w", effort, err)
	}
	return result, err
}

// parseRetryAfter reads a Retry-After header (RFC 9110, section 10.2.3: seconds or an HTTP date).
// It returns zero for what is neither or lies in the past, and at most maxReported.
func parseRetryAfter(value string, now time.Time) time.Duration {
	value = strings.TrimSpace(value)
	if value == "" {
		return 0
	}
	if strings.Trim(value, "0123456789") == "" {
		seconds, err := strconv.ParseInt(value, 10, 64)
		if err != nil || seconds > int64(maxReported/time.Second) {
			return maxReported
		}
		return time.Duration(seconds) * time.Second
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), maxReported)
}

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

// A request carries a private key. Where we have a client certificate, it goes only to a server
// that has asked for it in TLS, as a CertService does: one that does not ask is something else, or
// something on the way ends TLS and reads along. Each connection makes a full handshake, because
// in a resumed session a server does not ask again.

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

// noteWhenAsked has each handshake note whether the server asks for the client certificate, and
// makes each a full one.
func (c *Client) noteWhenAsked(allowed bool) {
	show, certificates := c.tls.GetClientCertificate, c.tls.Certificates
	if show == nil && len(certificates) == 0 {
		return // this is not mutual TLS
	}
	c.needAsked = !allowed
	c.tls.ClientSessionCache, c.tls.SessionTicketsDisabled = nil, true
	c.tls.Renegotiation = tls.RenegotiateNever
	c.tls.GetClientCertificate = func(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		progressOf(info.Context()).asked.Store(true)
		if show != nil {
			return show(info)
		}
		for i := range certificates {
			if info.SupportsCertificate(&certificates[i]) == nil {
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

// afterTLSToProxy returns what the transport calls when it has made TLS
// through a proxy, before it writes the request. It closes the tunnel to
// a server that did not ask, so that no byte of the request can leave.
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
