package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/certfetcher/certfetcher/client"
	"github.com/certfetcher/certfetcher/internal/config"
	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/mtls"
	"github.com/certfetcher/certfetcher/internal/pki"
)

// slowName is how long the resolution of a name may take before it is worth a warning.
const slowName = time.Second

// The clock's bounds. More than the larger one behind, and a
// new certificate is refused as not yet valid.
const (
	skewWarning = time.Minute
	skewFailed  = 5 * time.Minute
)

// way is the way to the CertService, as the client finds it. It is worded here.
type way struct {
	*doctor
	*client.Diagnosis
	identity *mtls.Identity
	plain    bool // the way goes without TLS
}

// network checks the way to the CertService and what is at its end. identity is nil when it is
// unusable; then the way is checked as far as TCP.
func (d *doctor) network(ctx context.Context, identity *mtls.Identity) {
	if d.Config.CMP != nil {
		d.cmpNetwork(ctx, identity)
		return
	}
	if variable := d.faulty("REQUEST_URL"); variable != "" {
		d.skipRest(networkChecks, variable+" has a fault")
		return
	}
	cfg := enroll.ClientConfig(d.Config.Request, identity, d.Now)
	cfg.Timeout, cfg.Dialer, cfg.Proxy = d.NetworkTimeout, d.Dialer, d.Proxy
	// By this, and by the CSR that is missing, the CertService
	// tells a trial from a client that does not work.
	cfg.UserAgent = d.UserAgent + " (doctor)"
	if d.faulty("CA_NAME") != "" {
		cfg.CAName = ""
	}
	diagnosis, err := client.Diagnose(ctx, cfg)
	if err != nil { // config has checked the same before
		d.skipRest(networkChecks, err.Error())
		return
	}
	w := &way{doctor: d, Diagnosis: diagnosis, identity: identity}
	if !w.follow(networkChecks) {
		return
	}
	w.ready()
	w.caName()
	w.clock()
	d.skipRest(networkChecks, "the answer has no Date")
}

// follow reports the steps of the way, and tells whether it was gone to its end. Where it was not, the
// rest of the checks is skipped.
func (w *way) follow(checks []string) bool {
	for _, step := range []struct {
		name    client.StepName
		report  func(client.Step)
		because string // what follows is skipped
	}{
		{client.StepProxy, w.proxy, "because the proxy check failed"},
		{client.StepHost, w.host, "because the dns check failed"},
		{client.StepTCP, w.tcp, "because the tcp check failed"},
		{client.StepTLS, w.tls, "because the tls check failed"},
		{client.StepTrust, w.trust, "because the server is not trusted"},
		{client.StepAnswer, w.answer, "because the client accepted check failed"},
	} {
		taken, ok := w.Step(step.name)
		if !ok && w.plain && step.name == client.StepTLS {
			return true
		}
		if !ok {
			w.skipRest(checks, "because the "+w.lacking+" cannot be used")
			return false
		}
		step.report(taken)
		if taken.Err != nil {
			w.clock()
			w.skipRest(checks, step.because)
			return false
		}
	}
	return true
}

// broken reports a step that failed in the words of the client's error.
func (w *way) broken(check string, err error) {
	problem, advice := err.Error(), "see the log of certfetcher"
	if e, ok := errors.AsType[*client.ConnectionError](err); ok {
		problem, advice = e.Problem, e.Advice
	}
	w.fail(enroll.StageConnection, check, problem, advice)
}

// proxy does not show the proxy's user name and password.
func (w *way) proxy(step client.Step) {
	switch {
	case step.Err != nil:
		// The error may quote the variable, which may hold a password.
		w.fail(enroll.StageConnection, checkProxy, "the proxy in the environment is not a URL",
			"correct HTTPS_PROXY, or name the CertService's host in NO_PROXY")
	case w.Proxy == nil:
		w.ok(checkProxy, "none applies to %s", w.URL.Host)
	default:
		w.ok(checkProxy, "HTTPS_PROXY leads through %s://%s, which resolves the name %s; NO_PROXY would exempt it",
			w.Proxy.Scheme, w.Proxy.Host, w.URL.Hostname())
	}
}

func (w *way) host(step client.Step) {
	host := w.URL.Hostname()
	if w.Proxy != nil {
		host = w.Proxy.Hostname()
	}
	if step.Err != nil {
		w.broken(checkDNS, step.Err)
		return
	}
	var addresses []string
	for _, address := range w.Addresses {
		addresses = append(addresses, address.Addr().String())
	}
	found := fmt.Sprintf("%s is %s (%s)", host, some(addresses), step.Took.Round(time.Millisecond))
	switch {
	case len(addresses) == 1 && addresses[0] == host:
		w.ok(checkDNS, "%s is an address, there is no name to resolve", host)
	case step.Took > slowName:
		w.warn(checkDNS, found,
			"each request waits for this: look at the DNS servers and search domains in /etc/resolv.conf")
	default:
		w.ok(checkDNS, "%s", found)
	}
}

func (w *way) tcp(step client.Step) {
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
		dead = append(dead, fmt.Sprintf("%s does not connect: %s", address, w.reason(address.Err)))
	}
	switch {
	case step.Err != nil:
		w.fail(enroll.StageConnection, checkTCP, strings.Join(dead, "; "), advice)
	case len(dead) > 0:
		w.warn(checkTCP, "connected to "+some(alive)+", but "+strings.Join(dead, "; "), advice)
	default:
		w.ok(checkTCP, "connected to %s", some(alive))
	}
}

func (w *way) tls(step client.Step) {
	switch {
	case step.Err != nil:
		w.broken(checkTLS, step.Err)
	case w.TLS == nil:
		w.ok(checkTLS, "%s speaks TLS and shows a certificate", w.URL.Host)
	default:
		w.ok(checkTLS, "%s with %s, %s", tls.VersionName(w.TLS.Version), w.URL.Host,
			tls.CipherSuiteName(w.TLS.CipherSuite))
	}
}

// trust judges what the server has shown: how long it is valid, whether it chains to the
// truststore, and whether it has the host name.
func (w *way) trust(client.Step) {
	leaf, now := w.Shown[0], w.Now()
	found := fmt.Sprintf("subject %q, issuer %q, names %s, valid until ",
		pki.DN(leaf.RawSubject), pki.DN(leaf.RawIssuer), some(pki.Names(leaf)))
	const renew = "have the CertService's certificate renewed"
	switch {
	case now.After(leaf.NotAfter):
		w.fail(enroll.StageConnection, checkServer, found+pki.Stamp(leaf.NotAfter)+", which is over",
			renew+", or check this machine's clock")
	case now.Before(leaf.NotBefore):
		w.fail(enroll.StageConnection, checkServer,
			found+pki.Stamp(leaf.NotAfter)+", but not before "+pki.Stamp(leaf.NotBefore), "check this machine's clock")
	case w.Dates:
		w.fail(enroll.StageConnection, checkServer, found+until(leaf.NotAfter, now)+"; a CA above it is not valid now",
			"have the CertService's chain renewed, or check this machine's clock")
	case pki.ExpiresSoon(leaf, now):
		w.warn(checkServer, found+until(leaf.NotAfter, now), renew)
	default:
		w.ok(checkServer, "%s", found+until(leaf.NotAfter, now))
	}
	if w.ChainErr != nil {
		w.broken(checkTrust, w.ChainErr)
	} else {
		w.ok(checkTrust, "chains to %q in TRUSTSTORE_PATH", pki.DN(w.Chain[len(w.Chain)-1].RawSubject))
	}
	if w.HostErr != nil {
		w.broken(checkServerName, w.HostErr)
	} else {
		w.ok(checkServerName, "the certificate is for %q", w.URL.Hostname())
	}
}

// answer tells whether the server accepts us.
func (w *way) answer(step client.Step) {
	own, token := w.identity.Certificate.Leaf, w.Config.Request.TokenPath != ""
	subject := "" // which a token, and CMP, may do without
	if own != nil {
		subject = pki.DN(own.RawSubject)
	}
	status, ofService := errors.AsType[*client.StatusError](step.Err)
	switch {
	case ofService && (token || own == nil):
		found := "the CertService refuses us: " + status.Status()
		if status.Reason != "" {
			found += fmt.Sprintf(" (reason %q)", status.Reason)
		}
		w.fail(enroll.StageConnection, checkAccepted, found, status.Advice())
	case step.Err == nil && own == nil && !token:
		w.ok(checkAccepted, "the server answers without a client certificate")
	case step.Err == nil && token && (own == nil || !w.Asked):
		w.ok(checkAccepted, "the server answers a request with the token")
	case step.Err == nil && token:
		w.ok(checkAccepted, "the server answers a request of %q with the token", subject)
	case ofService:
		w.fail(enroll.StageConnection, checkAccepted,
			fmt.Sprintf("the CertService refuses %q, issued by %q: %s", subject,
				pki.DN(own.RawIssuer), status.Status()),
			w.ownFault("add the CA that issued the certificate in KEYSTORE_PATH to the truststore of the CertService; "+
				"its log tells the reason"))
	case step.Err != nil && w.OtherCAs:
		w.broken(checkAccepted, step.Err)
		w.checks[len(w.checks)-1].Found += "; it asks for one of other CAs"
	case step.Err != nil:
		w.broken(checkAccepted, step.Err)
	case !w.Asked:
		w.warn(checkAccepted, "the server never asked for a client certificate, which ALLOW_NO_CLIENT_AUTH allows; "+
			"it answers "+said(w.Answer), "unset ALLOW_NO_CLIENT_AUTH when TLS is passed through to the CertService")
	default:
		w.ok(checkAccepted, "the server asked for a certificate and answers %q", subject)
	}
}

// ownFault is what to do about a refusal: what is known here to be wrong with our certificate
// comes before what the other side may have against it.
func (w *way) ownFault(advice string) string {
	if problems := w.identity.Problems(w.Now()); len(problems) > 0 {
		return "replace the file in KEYSTORE_PATH: " + strings.Join(problems, "; ")
	}
	return advice
}

// said words a reply.
func said(r client.Reply) string {
	if status, ok := errors.AsType[*client.StatusError](r.Err); ok {
		return status.Status()
	}
	text := fmt.Sprintf("%d %s", r.StatusCode, http.StatusText(r.StatusCode))
	if odd, ok := errors.AsType[*client.AnswerError](r.Err); ok {
		text += fmt.Sprintf(" (%s)", odd.Reason)
	}
	return text
}

func (w *way) ready() {
	const advice = "see the log of the CertService, and its cmpServers.json"
	switch asked := "GET " + w.ReadyPath; {
	case w.ReadyPath == "":
		w.skip(checkService, "where it says that it is ready does not follow from the path in REQUEST_URL")
	case w.Ready.StatusCode == 0:
		w.fail(enroll.StageConnection, checkService, fmt.Sprintf("no answer to %s: %v", asked, w.Ready.Err), advice)
	case w.Ready.StatusCode == http.StatusOK:
		w.ok(checkService, "ready (%s)", asked)
	case w.Ready.StatusCode == http.StatusServiceUnavailable:
		w.fail(enroll.StageCertService, checkService,
			fmt.Sprintf("not ready: %s is answered by %s", asked, said(w.Ready)), advice)
	case w.Ready.StatusCode == http.StatusNotFound:
		w.skip(checkService, "this server does not say")
	default:
		w.warn(checkService, fmt.Sprintf("%s is answered by %s", asked, said(w.Ready)), advice)
	}
}

// unknownCAMessage is by what the ONAP server and ours tell a CA that they do not know from a path
// that they do not know.
const unknownCAMessage = "Certification authority not found for given CAName"

// caName interprets the answer for the configured CA. A server that looks
// for the CA before it looks at the headers, as ours does, answers 404 for
// an unknown one; one that looks at the headers first, as the ONAP server
// does, answers 400 for any. A name that cannot exist tells the two apart.
func (w *way) caName() {
	if fault := w.faulty("CA_NAME"); fault != "" {
		w.skip(checkCAName, fault+" has a fault")
		return
	}
	name, answered := w.Config.Request.CAName, said(w.Answer)
	status, _ := errors.AsType[*client.StatusError](w.Answer.Err)
	switch code := w.Answer.StatusCode; {
	case status != nil && status.OfPolicy():
		w.fail(enroll.StageCertService, checkCAName, answered, status.Advice())
	case code == http.StatusNotFound && status.Message == unknownCAMessage:
		w.fail(enroll.StageCertService, checkCAName, fmt.Sprintf("%q is not known: %s", name, answered),
			"correct CA_NAME, or add it to the cmpServers.json of the CertService")
	case code == http.StatusNotFound:
		w.fail(enroll.StageCertService, checkCAName,
			fmt.Sprintf("the path of REQUEST_URL leads nowhere: GET %s is answered by %s",
				path.Join("/", w.URL.Path), answered),
			"correct the path in REQUEST_URL; that of a CertService ends in /v1/certificate/")
	case code >= 300 && code < 400:
		w.fail(enroll.StageCertService, checkCAName, "the server redirects: "+answered,
			"correct REQUEST_URL: redirects are not followed, as the request carries a private key")
	case code != http.StatusBadRequest:
		w.fail(enroll.StageCertService, checkCAName,
			fmt.Sprintf("a request without a CSR is answered by %s, want 400 Bad Request", answered),
			"see the log of the CertService, if it is one: check REQUEST_URL")
	case w.UnknownCA.StatusCode == http.StatusNotFound:
		w.ok(checkCAName, "%q is known", name)
	default:
		w.skip(checkCAName, fmt.Sprintf("without a CSR this server does not say whether %q is known", name))
	}
}

// clock compares the clocks, where the answer has a Date.
func (w *way) clock() {
	if w.Clock == nil {
		return
	}
	const advice = "set this machine's clock, or the CertService's, by NTP; in a container it is the node's"
	apart, side := w.Clock.Abs(), "ahead of"
	if *w.Clock < 0 {
		side = "behind"
	}
	text := fmt.Sprintf("%s %s the CertService's", apart.Round(time.Second), side)
	switch {
	case apart > skewFailed:
		w.fail(enroll.StageVerification, checkClock, text,
			advice+"; more than 5 minutes make new certificates unusable")
	case apart > skewWarning:
		w.warn(checkClock, text, advice)
	case apart < 2*time.Second:
		w.ok(checkClock, "in step with the CertService's")
	default:
		w.ok(checkClock, "%s", text)
	}
}

// update checks where renewals are asked for, when that was given and does not follow from
// REQUEST_URL: all that is checked of REQUEST_URL, of which the first thing wrong is reported.
func (d *doctor) update(ctx context.Context, identity *mtls.Identity) {
	target := d.Config.Request.UpdateURL
	if fault := d.faulty("UPDATE_URL"); fault != "" {
		d.skip(checkUpdate, fault+" has a fault")
		return
	}
	if target == "" {
		return
	}
	if failed := d.failedWay(); failed != "" && sameHost(target, d.Config.Request.URL) {
		d.skip(checkUpdate, "because the "+failed+" check failed, which is about the same host")
		return
	}
	cfg := *d.Config
	cfg.Request.URL = target
	other := &doctor{Options: d.Options, lacking: d.lacking}
	other.Config = &cfg
	other.Faults = slices.DeleteFunc(slices.Clone(d.Faults),
		func(f config.Fault) bool { return f.Variable == "REQUEST_URL" })
	other.network(ctx, identity)

	worst := Check{Status: OK, Found: target + " leads to a CertService that accepts us"}
	if identity == nil {
		worst = Check{Status: Skipped, Found: "not checked beyond TCP, because the " + d.lacking + " cannot be used"}
	}
	for _, status := range []Status{Failed, Warning} {
		i := slices.IndexFunc(other.checks, func(c Check) bool { return c.Status == status && c.Name != checkClock })
		if i >= 0 {
			worst = other.checks[i]
			worst.Found = fmt.Sprintf("UPDATE_URL %s, %s: %s", target, worst.Name, worst.Found)
			break
		}
	}
	named := strings.NewReplacer("REQUEST_URL", "UPDATE_URL", "ends in /v1/certificate/",
		"ends in /v1/certificate-update/")
	worst.Name, worst.Found, worst.Advice = checkUpdate, named.Replace(worst.Found), named.Replace(worst.Advice)
	d.add(worst)
}

// failedWay is the first failed check on the way to the
// CertService, as far as to its answers; or "".
func (d *doctor) failedWay() string {
	way := networkChecks[:slices.Index(networkChecks, checkService)]
	for _, c := range d.checks {
		if c.Status == Failed && slices.Contains(way, c.Name) {
			return c.Name
		}
	}
	return ""
}

func sameHost(a, b string) bool {
	first, err := url.Parse(a)
	if err != nil {
		return false
	}
	second, err := url.Parse(b)
	return err == nil && first.Hostname() == second.Hostname() && client.Port(first) == client.Port(second)
}

// reason is an error of the network without the parts that a check's text has anyway.
func (d *doctor) reason(err error) string {
	var timeout interface{ Timeout() bool }
	var number syscall.Errno
	switch {
	case errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout():
		return "no answer within " + d.NetworkTimeout.String()
	case errors.As(err, &number):
		return number.Error()
	}
	return err.Error()
}
