package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"
	"time"
)

// StepName names a step on the way to CertService.
type StepName string

// The steps, in the order in which they are taken.
const (
	StepProxy  StepName = "proxy"  // finding the proxy that applies
	StepHost   StepName = "name"   // resolving the host of the proxy, or else of CertService
	StepTCP    StepName = "tcp"    // connecting to each of its addresses
	StepTLS    StepName = "tls"    // the handshake as far as the server's certificate, through the proxy
	StepTrust  StepName = "trust"  // the server's certificate: issuer, dates, host name
	StepAnswer StepName = "answer" // what the server makes of our certificate, and what it answers
)

// Step is a step that was taken.
type Step struct {
	Name StepName
	Took time.Duration
	// Err is why the way ends here. For the steps behind StepProxy it is a *ConnectionError, or
	// for StepAnswer a *StatusError 401. Nil: it goes on.
	Err error
}

// Address is one to which a connection was tried.
type Address struct {
	netip.AddrPort
	Err error // nil: it connects
}

// Reply is what came for a request without a CSR.
type Reply struct {
	StatusCode int   // zero: nothing came
	Err        error // what Enroll would return; nil: certificates
}

// Diagnosis is how far the way to CertService goes.
type Diagnosis struct {
	URL   *url.URL // of the CA
	Proxy *url.URL // nil: none applies
	Steps []Step   // only the last can have failed

	Addresses []Address            // at most 16
	TLS       *tls.ConnectionState // nil: the handshake did not get past the server's certificate
	Shown     []*x509.Certificate  // by the server, whether trusted or not
	Chain     []*x509.Certificate  // from what it has shown to a root; nil: there is none
	// ChainErr and HostErr are what is wrong with the server's certificate whatever the time is.
	// Dates tells that nothing but the dates is.
	ChainErr, HostErr *ConnectionError
	Dates             bool

	Asked    bool // the server asked for a client certificate
	OtherCAs bool // and named CAs that did not issue ours
	// Clock is by how much our clock is ahead of the server's,
	// known to within a second. Nil: it did not say.
	Clock *time.Duration

	Answer Reply // for the CA
	// UnknownCA is the reply for a CA that does not exist, where Answer has status 400.
	UnknownCA Reply
	// ReadyPath is where Ready was asked for. Empty: it does not follow from the path of the URL.
	ReadyPath string
	Ready     Reply
}

// Step returns a step by its name, and false where the way does not go as far.
func (d *Diagnosis) Step(name StepName) (Step, bool) {
	i := slices.IndexFunc(d.Steps, func(s Step) bool { return s.Name == name })
	if i < 0 {
		return Step{}, false
	}
	return d.Steps[i], true
}

// unknownCA is a CA name that no one has. It stands in the server's log, and so says who asked.
const unknownCA = "certfetcher-doctor-asks-for-a-ca-that-does-not-exist"

// Diagnose tries the way that Enroll takes, over the same dialer, proxy, TLS
// configuration and request code, step by step as far as it goes. It asks for nothing:
// its requests carry no CSR and no key, which every server refuses, and so it makes
// them even where the server does not ask for the client certificate. Config.Timeout
// bounds each step. Without Config.TLS it goes as far as TCP, and without
// Config.CAName only a CA that does not exist is asked for. Its error is that of New.
func Diagnose(ctx context.Context, cfg Config) (*Diagnosis, error) {
	d := &diagnosing{Diagnosis: &Diagnosis{}, ctx: ctx, toTCP: cfg.TLS == nil, onlyAccepted: cfg.CAName == ""}
	if cfg.Proxy == nil {
		if err := checkProxy(); err != nil {
			d.Steps = []Step{{Name: StepProxy, Err: err}}
			return d.Diagnosis, nil
		}
	}
	if d.toTCP {
		cfg.TLS = &tls.Config{}
	}
	if d.onlyAccepted {
		cfg.CAName = unknownCA
	}
	var err error
	if d.Client, err = New(cfg); err != nil {
		return nil, err
	}
	d.mustAsk, d.needAsked = d.needAsked, false
	d.observe()
	d.URL = d.enrollURL
	d.run()
	return d.Diagnosis, nil
}

// DiagnoseCarrier is Diagnose for the way of a Carrier: it ends with an answer of whatever kind, or
// without TLS at the connection.
func DiagnoseCarrier(ctx context.Context, cfg Config) (*Diagnosis, error) {
	c, err := NewCarrier(cfg)
	if err != nil {
		return nil, err
	}
	d := &diagnosing{Diagnosis: &Diagnosis{URL: c.client.enrollURL}, Client: c.client, ctx: ctx, onlyWay: true}
	d.toTCP = d.URL.Scheme == "http" || cfg.TLS == nil
	d.observe()
	d.run()
	return d.Diagnosis, nil
}

// diagnosing is a diagnosis under way.
type diagnosing struct {
	*Client
	*Diagnosis
	ctx                          context.Context
	toTCP, onlyAccepted, mustAsk bool
	onlyWay                      bool // to a server of another protocol

	mu       sync.Mutex // for what follows, which a handshake may see that no request waits for any more
	response *http.Response
	sent     time.Time // when there was a connection for the request
	received time.Time
	state    *tls.ConnectionState
	asked    bool
	otherCAs bool
}

// step takes a step, and tells whether the way goes on.
func (d *diagnosing) step(name StepName, take func(context.Context) error) bool {
	ctx, cancel := d.withTimeout(d.ctx)
	defer cancel()
	start := time.Now()
	err := take(ctx)
	d.Steps = append(d.Steps, Step{Name: name, Took: time.Since(start), Err: err})
	return err == nil
}

// observe has each handshake and each answer noted.
func (d *diagnosing) observe() {
	d.tls.VerifyConnection = func(state tls.ConnectionState) error {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.state = &state
		return nil
	}
	if show := d.tls.GetClientCertificate; show != nil {
		d.tls.GetClientCertificate = func(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			certificate, err := show(info)
			d.mu.Lock()
			defer d.mu.Unlock()
			d.asked, d.otherCAs = true, err == nil && info.SupportsCertificate(certificate) != nil
			return certificate, err
		}
	}
	transport := d.transport
	d.transport = roundTripper(func(r *http.Request) (*http.Response, error) {
		response, err := transport.RoundTrip(r)
		d.mu.Lock()
		defer d.mu.Unlock()
		d.response, d.received = response, d.now()
		return response, err
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (r roundTripper) RoundTrip(request *http.Request) (*http.Response, error) { return r(request) }

func (d *diagnosing) run() {
	first := d.URL
	if !d.step(StepProxy, func(context.Context) (err error) {
		if d.Proxy, err = d.proxy(&http.Request{URL: d.URL}); d.Proxy != nil {
			first = d.Proxy
		}
		return err
	}) {
		return
	}
	var found []netip.Addr
	if !d.step(StepHost, func(ctx context.Context) (err error) {
		found, err = d.resolve(ctx, first.Hostname())
		return d.explain(ctx, stageConnect, err)
	}) || !d.step(StepTCP, func(ctx context.Context) error {
		return d.explain(ctx, stageConnect, d.dialAll(ctx, found, Port(first)))
	}) || d.toTCP {
		return
	}
	var err error
	if !d.step(StepTLS, func(ctx context.Context) error {
		d.Answer, err = d.ask(ctx, d.URL)
		if d.Shown == nil {
			return err
		}
		return nil
	}) || !d.step(StepTrust, func(ctx context.Context) error { return d.checkTrust(ctx, err) }) {
		return
	}
	if d.step(StepAnswer, func(ctx context.Context) error { return d.checkAnswer(ctx, err) }) && !d.onlyWay {
		d.askMore()
	}
}

// Port is the port that a URL leads to, which may be one of a proxy.
func Port(u *url.URL) string {
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

func (d *diagnosing) explain(ctx context.Context, reached stage, err error) error {
	if err == nil {
		return nil
	}
	return d.connectionError(ctx, d.URL, reached, err)
}

func (d *diagnosing) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	if address, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{address}, nil
	}
	resolver := d.dialer.Resolver
	if resolver == nil {
		resolver = net.DefaultResolver
	}
	return resolver.LookupNetIP(ctx, "ip", host)
}

// dialAll connects to every address at the same time: one of
// several that is dead makes every other try fail.
func (d *diagnosing) dialAll(ctx context.Context, found []netip.Addr, port string) error {
	found = found[:min(len(found), 16)]
	d.Addresses = make([]Address, len(found))
	var dials sync.WaitGroup
	for i, address := range found {
		dials.Go(func() {
			text := net.JoinHostPort(address.Unmap().String(), port)
			at, err := netip.ParseAddrPort(text)
			if err == nil {
				var conn net.Conn
				if conn, err = d.dialer.DialContext(ctx, "tcp", text); err == nil {
					conn.Close()
				}
			}
			d.Addresses[i] = Address{at, err}
		})
	}
	dials.Wait()
	if i := slices.IndexFunc(d.Addresses, func(a Address) bool { return a.Err == nil }); i >= 0 {
		return nil
	}
	return d.Addresses[0].Err
}

// ask makes one request without a CSR. The error is set when no answer came.
func (d *diagnosing) ask(ctx context.Context, target *url.URL) (Reply, error) {
	d.mu.Lock()
	d.response, d.state = nil, nil
	d.mu.Unlock()
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.sent = d.now()
	}})
	secrets, err := d.withToken(nil)
	if err == nil {
		_, err = d.roundTrip(traced, target, secrets, &progress{})
		err = secrets.clean(err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.Asked, d.OtherCAs = d.asked, d.otherCAs
	if d.state != nil && d.TLS == nil {
		d.TLS, d.Shown = d.state, d.state.PeerCertificates
	}
	untrusted, ofServer := errors.AsType[*tls.CertificateVerificationError](err)
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == proxyConnect {
		ofServer = false
	}
	if ofServer {
		d.Shown = untrusted.UnverifiedCertificates
	}
	if d.response == nil {
		return Reply{Err: err}, err
	}
	if date, err := http.ParseTime(d.response.Header.Get("Date")); err == nil && d.Clock == nil {
		// The date is cut off to whole seconds (RFC 9110,
		// section 5.6.7), and was written between the two.
		ahead := d.sent.Add(d.received.Sub(d.sent) / 2).Sub(date.Add(500 * time.Millisecond))
		d.Clock = &ahead
	}
	if _, broken := errors.AsType[*ConnectionError](err); !broken {
		return Reply{d.response.StatusCode, err}, nil
	}
	return Reply{d.response.StatusCode, err}, err
}

// checkTrust judges what the server has shown. When nothing but the dates is wrong, the clock of
// the two may be the reason, so the server is asked for its own: only the time of the verification
// is changed, and nothing secret is sent.
func (d *diagnosing) checkTrust(ctx context.Context, handshake error) error {
	leaf, host := d.Shown[0], strings.TrimSuffix(d.URL.Hostname(), ".")
	untrusted := func(e explanation, err error) *ConnectionError {
		return &ConnectionError{Err: err, Problem: d.words.Replace(e.problem), Advice: d.words.Replace(e.advice),
			Permanent: true}
	}
	moment, chain, err := d.verify()
	d.Chain = chain
	if err != nil {
		d.ChainErr = untrusted(d.explainUntrusted(d.URL, &tls.CertificateVerificationError{
			UnverifiedCertificates: d.Shown, Err: err,
		}), err)
	}
	if err := leaf.VerifyHostname(host); err != nil {
		d.HostErr = untrusted(explainHost(leaf, host), err)
	}
	switch {
	case d.ChainErr != nil:
		return d.ChainErr
	case d.HostErr != nil:
		return d.HostErr
	case moment.IsZero():
		return nil
	}
	d.Dates = true
	d.tls.Time, d.tokenPath = func() time.Time { return moment }, ""
	_, _ = d.ask(ctx, d.URL) // of which the clock is of interest
	return handshake
}

// verify looks for a chain that is valid now, or else at another time, which is not zero then:
// dates tell of a clock or of a late renewal, a missing chain of a wrong truststore. A chain that
// is valid at any time is so when the last of its certificates begins.
func (d *diagnosing) verify() (moment time.Time, chain []*x509.Certificate, err error) {
	intermediates, times := x509.NewCertPool(), []time.Time{d.tls.Time()}
	for _, cert := range d.Shown[1:] {
		intermediates.AddCert(cert)
	}
	for _, cert := range slices.Concat(d.Shown, d.roots) {
		times = append(times, cert.NotBefore)
	}
	for i, at := range times {
		chains, failure := d.Shown[0].Verify(x509.VerifyOptions{
			Roots: d.tls.RootCAs, Intermediates: intermediates, CurrentTime: at,
			KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		})
		switch {
		case failure == nil && i == 0:
			return time.Time{}, chains[0], nil
		case failure == nil:
			return at, chains[0], nil
		case err == nil:
			err = failure
		}
	}
	return time.Time{}, nil, err
}

// checkAnswer tells whether the server accepts us.
func (d *diagnosing) checkAnswer(ctx context.Context, err error) error {
	switch {
	case err != nil:
		return err
	case d.mustAsk && !d.Asked:
		return d.explain(ctx, stageTLS, &unaskedError{d.Shown[0]})
	case d.Answer.StatusCode == http.StatusUnauthorized:
		return d.Answer.Err
	}
	return nil
}

// askMore asks whether CertService is ready to work, of the ONAP server and ours alike, and where
// it may say so by a CA that does not exist, whether it knows ours.
func (d *diagnosing) askMore() {
	ask := func(target *url.URL) Reply {
		ctx, cancel := d.withTimeout(d.ctx)
		defer cancel()
		reply, _ := d.ask(ctx, target)
		return reply
	}
	if prefix, ok := strings.CutSuffix(strings.TrimSuffix(path.Dir(d.URL.Path), "-update"), "/v1/certificate"); ok {
		for _, end := range []string{"/ready", "/actuator/health"} {
			d.ReadyPath = prefix + end
			d.Ready = ask(&url.URL{Scheme: d.URL.Scheme, Host: d.URL.Host, Path: d.ReadyPath})
			if d.Ready.StatusCode != http.StatusNotFound {
				break
			}
		}
	}
	if !d.onlyAccepted && d.Answer.StatusCode == http.StatusBadRequest {
		d.UnknownCA = ask(d.URL.JoinPath("..", unknownCA))
	}
}
