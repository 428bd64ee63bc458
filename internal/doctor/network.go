package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/mtls"
)

// slowName is how long the resolution of a name may take before it is worth a warning.
const slowName = time.Second

// network checks the way to the CertService and what is at its end. identity is nil when it is unusable; then
// the way is checked as far as TCP.
func (d *doctor) network(ctx context.Context, identity *mtls.Identity) {
	if variable := d.faulty("REQUEST_URL"); variable != "" {
		d.skipRest(networkChecks, variable+" has a fault")
		return
	}
	target, err := url.Parse(d.Config.Request.URL)
	if err != nil { // config has parsed it before
		d.skipRest(networkChecks, "REQUEST_URL is no URL")
		return
	}
	proxy, ok := d.proxy(target)
	if !ok {
		d.skipRest(networkChecks, "because the proxy check failed")
		return
	}
	first := target
	if proxy != nil {
		first = proxy
	}
	addresses, ok := d.resolve(ctx, first)
	if !ok {
		d.skipRest(networkChecks, "because the dns check failed")
		return
	}
	if !d.tcp(ctx, first, addresses) {
		d.skipRest(networkChecks, "because the tcp check failed")
		return
	}
	if identity == nil {
		d.skipRest(networkChecks, "because the mutual TLS files cannot be used")
		return
	}
	if proxy != nil && proxy.Scheme != "http" && proxy.Scheme != "https" {
		d.skipRest(networkChecks, "not checked through a "+proxy.Scheme+" proxy")
		return
	}
	s := newService(d, target, proxy, identity)
	defer s.close()
	s.check(ctx)
}

// proxy finds the proxy from the environment, nil where none applies. Its user name and password are not shown.
func (d *doctor) proxy(target *url.URL) (*url.URL, bool) {
	proxy, err := d.Proxy(&http.Request{URL: target})
	switch {
	case err != nil:
		// The error quotes the variable, which may hold a password.
		d.fail(enroll.StageConnection, checkProxy, "the proxy in the environment is not a URL", "correct HTTPS_PROXY, or name the CertService's host in NO_PROXY")
		return nil, false
	case proxy == nil:
		d.ok(checkProxy, "none applies to %s", target.Host)
	default:
		d.ok(checkProxy, "HTTPS_PROXY leads through %s://%s, which resolves the name %s; NO_PROXY would exempt it", proxy.Scheme, proxy.Host, target.Hostname())
	}
	return proxy, true
}

// resolve finds the addresses of a URL's host.
func (d *doctor) resolve(ctx context.Context, u *url.URL) ([]netip.Addr, bool) {
	host := u.Hostname()
	if address, err := netip.ParseAddr(host); err == nil {
		d.ok(checkDNS, "%s is an address, there is no name to resolve", host)
		return []netip.Addr{address}, true
	}
	limited, cancel := context.WithTimeout(ctx, d.NetworkTimeout)
	defer cancel()
	start := time.Now()
	addresses, err := d.LookupHost(limited, host)
	took := time.Since(start).Round(time.Millisecond)
	if err != nil || len(addresses) == 0 {
		why := "no address"
		var dns *net.DNSError
		switch {
		case limited.Err() != nil || errors.As(err, &dns) && dns.IsTimeout:
			why = "no answer within " + d.NetworkTimeout.String()
		case errors.As(err, &dns):
			why = dns.Err
		case err != nil:
			why = err.Error()
		}
		d.fail(enroll.StageConnection, checkDNS, fmt.Sprintf("the name %q is not resolved: %s", host, why),
			"check the host in REQUEST_URL and the cluster's DNS; a Service in another namespace is NAME.NAMESPACE")
		return nil, false
	}
	var texts []string
	for i, address := range addresses {
		addresses[i] = address.Unmap()
		texts = append(texts, addresses[i].String())
	}
	found := fmt.Sprintf("%s is %s (%s)", host, some(texts), took)
	if took > slowName {
		d.warn(checkDNS, found, "each request waits for this: look at the DNS servers and search domains in /etc/resolv.conf")
	} else {
		d.ok(checkDNS, "%s", found)
	}
	return addresses, true
}

func portOf(u *url.URL) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case u.Scheme == "http":
		return "80"
	case strings.HasPrefix(u.Scheme, "socks5"):
		return "1080"
	}
	return "443"
}

// tcp connects to every address at the same time: one of several that is dead makes every other start fail.
func (d *doctor) tcp(ctx context.Context, u *url.URL, addresses []netip.Addr) bool {
	limited, cancel := context.WithTimeout(ctx, d.NetworkTimeout)
	defer cancel()
	const most = 16
	addresses = addresses[:min(len(addresses), most)]
	errs := make([]error, len(addresses))
	var dials sync.WaitGroup
	for i, address := range addresses {
		dials.Go(func() {
			conn, err := d.Dial(limited, "tcp", net.JoinHostPort(address.String(), portOf(u)))
			if errs[i] = err; err == nil {
				conn.Close()
			}
		})
	}
	dials.Wait()
	var alive, dead []string
	advice := "check the address, and the network policies, routes and firewalls on the way"
	for i, address := range addresses {
		text := net.JoinHostPort(address.String(), portOf(u))
		if errs[i] == nil {
			alive = append(alive, text)
			continue
		}
		if errors.Is(errs[i], syscall.ECONNREFUSED) {
			advice = "nothing listens there: check that it is up, and the port"
		}
		dead = append(dead, fmt.Sprintf("%s does not connect: %s", text, d.reason(errs[i])))
	}
	switch {
	case len(alive) == 0:
		d.fail(enroll.StageConnection, checkTCP, strings.Join(dead, "; "), advice)
		return false
	case len(dead) > 0:
		d.warn(checkTCP, "connected to "+some(alive)+", but "+strings.Join(dead, "; "), advice)
	default:
		d.ok(checkTCP, "connected to %s", some(alive))
	}
	return true
}

// reason is an error of the network without the parts that a check's text has anyway.
func (d *doctor) reason(err error) string {
	var number syscall.Errno
	switch {
	case d.late(err):
		return "no answer within " + d.NetworkTimeout.String()
	case errors.As(err, &number):
		return number.Error()
	}
	return err.Error()
}

// late tells a time-out.
func (d *doctor) late(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}
