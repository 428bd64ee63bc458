package checks

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/certfetcher/certfetcher/client"
	"github.com/certfetcher/certfetcher/internal/pki"
)

// Names of the checks of a way and of what is at its end.
const (
	Proxy      = "proxy"
	DNS        = "dns"
	TCP        = "tcp"
	TLS        = "tls"
	Server     = "server certificate"
	Trust      = "server trust"
	ServerName = "server name"
	Accepted   = "client accepted"
	Clock      = "clock"
	Anchors    = "trust anchors"
	CMP        = "cmp"
)

// slowName is how long the resolution of a name may take before it is worth a warning.
const slowName = time.Second

// The clock's bounds. More than the larger one behind, and a
// new certificate is refused as not yet valid.
const (
	skewWarning = time.Minute
	skewFailed  = 5 * time.Minute
)

// Way is the way to a server, as package client found it. It is worded here.
type Way struct {
	*List
	*client.Diagnosis
	Now      func() time.Time
	Timeout  time.Duration // of each step
	Plain    bool          // the way goes without TLS
	ExitCode int           // of failures
	Peer     string        // what the server is called, such as CertService
	Trusted  string        // where the server's CA has to be
	Lacking  string        // what keeps the way from going beyond TCP, where it does

	Proxied  func(client.Step) // reports how the proxy was found; nil: nothing
	Answered func(client.Step) // reports what the server answers; nil: nothing
	Ended    func()            // is called where the way ends with a failure; nil: nothing
}

// Follow reports the steps of the way, and tells whether it was gone to its end. Where it was not,
// the rest of the checks is skipped.
func (w *Way) Follow(names []string) bool {
	for _, step := range []struct {
		name    client.StepName
		report  func(client.Step)
		because string // what follows is skipped
	}{
		{client.StepProxy, w.Proxied, "because the proxy check failed"},
		{client.StepHost, w.host, "because the dns check failed"},
		{client.StepTCP, w.tcp, "because the tcp check failed"},
		{client.StepTLS, w.tls, "because the tls check failed"},
		{client.StepTrust, w.trust, "because the server is not trusted"},
		{client.StepAnswer, w.Answered, "because the client accepted check failed"},
	} {
		taken, ok := w.Step(step.name)
		if !ok && w.Plain && step.name == client.StepTLS {
			return true
		}
		if !ok {
			w.SkipRest(names, "because the "+w.Lacking+" cannot be used")
			return false
		}
		if step.report != nil {
			step.report(taken)
		}
		if taken.Err != nil {
			if w.Ended != nil {
				w.Ended()
			}
			w.SkipRest(names, step.because)
			return false
		}
	}
	return true
}

// Broken reports a step that failed in the words of the client's error.
func (w *Way) Broken(check string, err error) {
	problem, advice := err.Error(), "see the log"
	if e, ok := errors.AsType[*client.ConnectionError](err); ok {
		problem, advice = e.Problem, e.Advice
	}
	w.Fail(w.ExitCode, check, problem, advice)
}

func (w *Way) host(step client.Step) {
	host := w.URL.Hostname()
	if w.Diagnosis.Proxy != nil {
		host = w.Diagnosis.Proxy.Hostname()
	}
	if step.Err != nil {
		w.Broken(DNS, step.Err)
		return
	}
	var addresses []string
	for _, address := range w.Addresses {
		addresses = append(addresses, address.Addr().String())
	}
	found := fmt.Sprintf("%s is %s (%s)", host, Some(addresses), step.Took.Round(time.Millisecond))
	switch {
	case len(addresses) == 1 && addresses[0] == host:
		w.OK(DNS, "%s is an address, there is no name to resolve", host)
	case step.Took > slowName:
		w.Warn(DNS, found,
			"each request waits for this: look at the DNS servers and search domains in /etc/resolv.conf")
	default:
		w.OK(DNS, "%s", found)
	}
}

func (w *Way) tcp(step client.Step) {
	var alive, dead []string
	advice := "check the address, and the network policies, routes and firewalls on the way"
	for _, address := range w.Addresses {
		if address.Err == nil {
			alive = append(alive, address.String())
			continue
		}
		if errors.Is(address.Err, syscall.ECONNREFUSED) {
			advice = "nothing listens there: check that it is up, and the port"
		}
		dead = append(dead, fmt.Sprintf("%s does not connect: %s", address, Reason(address.Err, w.Timeout)))
	}
	switch {
	case step.Err != nil:
		w.Fail(w.ExitCode, TCP, strings.Join(dead, "; "), advice)
	case len(dead) > 0:
		w.Warn(TCP, "connected to "+Some(alive)+", but "+strings.Join(dead, "; "), advice)
	default:
		w.OK(TCP, "connected to %s", Some(alive))
	}
}

func (w *Way) tls(step client.Step) {
	switch {
	case step.Err != nil:
		w.Broken(TLS, step.Err)
	case w.TLS == nil:
		w.OK(TLS, "%s speaks TLS and shows a certificate", w.URL.Host)
	default:
		w.OK(TLS, "%s with %s, %s", tls.VersionName(w.TLS.Version), w.URL.Host,
			tls.CipherSuiteName(w.TLS.CipherSuite))
	}
}

// trust judges what the server has shown: how long it is valid, whether it chains to the
// truststore, and whether it has the host name.
func (w *Way) trust(client.Step) {
	leaf, now := w.Shown[0], w.Now()
	found := fmt.Sprintf("subject %q, issuer %q, names %s, valid until ",
		pki.DN(leaf.RawSubject), pki.DN(leaf.RawIssuer), Some(pki.Names(leaf)))
	renew := "have the " + w.Peer + "'s certificate renewed"
	switch {
	case now.After(leaf.NotAfter):
		w.Fail(w.ExitCode, Server, found+pki.Stamp(leaf.NotAfter)+", which is over",
			renew+", or check this machine's clock")
	case now.Before(leaf.NotBefore):
		w.Fail(w.ExitCode, Server,
			found+pki.Stamp(leaf.NotAfter)+", but not before "+pki.Stamp(leaf.NotBefore), "check this machine's clock")
	case w.Dates:
		w.Fail(w.ExitCode, Server, found+Until(leaf.NotAfter, now)+"; a CA above it is not valid now",
			"have the "+w.Peer+"'s chain renewed, or check this machine's clock")
	case pki.ExpiresSoon(leaf, now):
		w.Warn(Server, found+Until(leaf.NotAfter, now), renew)
	default:
		w.OK(Server, "%s", found+Until(leaf.NotAfter, now))
	}
	if w.ChainErr != nil {
		w.Broken(Trust, w.ChainErr)
	} else {
		w.OK(Trust, "chains to %q in %s", pki.DN(w.Chain[len(w.Chain)-1].RawSubject), w.Trusted)
	}
	if w.HostErr != nil {
		w.Broken(ServerName, w.HostErr)
	} else {
		w.OK(ServerName, "the certificate is for %q", w.URL.Hostname())
	}
}

// Clock compares the clock here, which is ahead by so much, with a peer's. A difference that makes
// certificates unusable fails with the exit code.
func (l *List) Clock(exitCode int, ahead time.Duration, peer string) {
	advice := "set this machine's clock, or the " + peer + "'s, by NTP; in a container it is the node's"
	apart, side := ahead.Abs(), "ahead of"
	if ahead < 0 {
		side = "behind"
	}
	text := fmt.Sprintf("%s %s the %s's", apart.Round(time.Second), side, peer)
	switch {
	case apart > skewFailed:
		l.Fail(exitCode, Clock, text, advice+"; more than 5 minutes make new certificates unusable")
	case apart > skewWarning:
		l.Warn(Clock, text, advice)
	case apart < 2*time.Second:
		l.OK(Clock, "in step with the %s's", peer)
	default:
		l.OK(Clock, "%s", text)
	}
}

// Reason is an error of the network, met within a time, without the parts that a check's text has anyway.
func Reason(err error, within time.Duration) string {
	var timeout interface{ Timeout() bool }
	var number syscall.Errno
	switch {
	case errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout():
		return "no answer within " + within.String()
	case errors.As(err, &number):
		return number.Error()
	}
	return err.Error()
}

// Some joins the first few of a list.
func Some(list []string) string { return strings.Join(pki.FirstOf(list, 6), ", ") }

// Until words an end that is ahead.
func Until(end, now time.Time) string {
	left := end.Sub(now)
	if left < 48*time.Hour {
		return fmt.Sprintf("%s, for %s", pki.Stamp(end), left.Round(time.Minute))
	}
	return fmt.Sprintf("%s, for %d days", pki.Stamp(end), pki.Days(now, end))
}
