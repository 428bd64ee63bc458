package doctor

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/client"
	"github.com/certfetcher/certfetcher/internal/certservice"
	"github.com/certfetcher/certfetcher/internal/checks"
	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/pki"
)

// authority checks one entry of cmpServers.json.
type authority struct {
	*Options
	checks.List
	server certservice.Server
}

// words name what package client calls by the variables of certfetcher.
var words = strings.NewReplacer("CertService or its CA is slow; raise REQUEST_TIMEOUT", "the CA is slow",
	"REQUEST_URL: CertService has 8443 for its API", "url", "CertService", "the CMP server", "REQUEST_URL", "url",
	"TRUSTSTORE_PATH", "tlsTrust", "KEYSTORE_PATH", "tlsIdentity", "the truststore", "tlsTrust")

var (
	wayChecks   = []string{checks.DNS, checks.TCP}
	tlsChecks   = []string{checks.TLS, checks.Server, checks.Trust, checks.ServerName, checks.Accepted}
	answerNames = []string{checks.CMP, checkCredential, checks.Anchors, checks.Clock}
)

func (a *authority) run(ctx context.Context) {
	a.dates(checkIdentity, a.server.TLS.Certificate())
	a.dates(checkSigner, a.server.Signer.Certificates()...)
	names := wayChecks
	if a.encrypted() {
		names = slices.Concat(wayChecks, tlsChecks)
	}
	names = slices.Concat(names, answerNames)
	a.proxy()
	diagnosis, err := client.DiagnoseCarrier(ctx, a.way())
	if err != nil { // the entry was read, so its URL is one
		a.SkipRest(names, err.Error())
		return
	}
	w := checks.Way{List: &a.List, Diagnosis: diagnosis, Now: a.Now, Timeout: a.NetworkTimeout, Plain: !a.encrypted(),
		ExitCode: exitFailed, Peer: "CMP server", Trusted: "tlsTrust"}
	if len(a.server.TLS.Trust) == 0 {
		w.Trusted = "the system's roots"
	}
	w.Answered = func(step client.Step) { a.accepted(&w, step) }
	w.Ended = func() {
		if diagnosis.Clock != nil {
			a.Clock(exitFailed, *diagnosis.Clock, w.Peer)
		}
	}
	if w.Follow(names) {
		a.ask(ctx)
	}
}

func (a *authority) encrypted() bool {
	return strings.HasPrefix(strings.ToLower(a.server.URL), "https://")
}

// way is the way of a request. Like the service, it uses no proxy.
func (a *authority) way() client.Config {
	cfg := client.Config{URL: a.server.URL, Dialer: a.Dialer, Timeout: a.NetworkTimeout, Words: words, Now: a.Now,
		UserAgent: a.UserAgent + " (doctor)", Roots: a.server.TLS.Trust,
		Proxy: func(*http.Request) (*url.URL, error) { return nil, nil }}
	if a.encrypted() {
		cfg.TLS = a.server.TLS.Config()
	}
	return cfg
}

// proxy says what may surprise where a proxy is configured for other programs.
func (a *authority) proxy() {
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"} {
		if os.Getenv(name) != "" {
			a.OK(checks.Proxy, "none is used: %s has no effect on a certservice", name)
			return
		}
	}
}

// dates checks when certificates of ours end.
func (a *authority) dates(name string, certificates ...*x509.Certificate) {
	const advice = "have a new one issued, and replace the file that cmpServers.json names"
	now := a.Now()
	var ends *x509.Certificate
	for _, c := range certificates {
		switch {
		case c == nil:
			return
		case now.After(c.NotAfter):
			a.Fail(exitFailed, name, fmt.Sprintf("%q expired at %s", pki.DN(c.RawSubject), pki.Stamp(c.NotAfter)),
				advice+", or check this machine's clock")
			return
		case now.Before(c.NotBefore):
			a.Fail(exitFailed, name, fmt.Sprintf("%q is not valid before %s", pki.DN(c.RawSubject),
				pki.Stamp(c.NotBefore)), "check this machine's clock")
			return
		case ends == nil || c.NotAfter.Before(ends.NotAfter):
			ends = c
		}
	}
	if ends == nil {
		return
	}
	found := fmt.Sprintf("%q is valid until %s", pki.DN(ends.RawSubject), checks.Until(ends.NotAfter, now))
	if pki.ExpiresSoon(ends, now) {
		a.Warn(name, found, advice)
		return
	}
	a.OK(name, "%s", found)
}

// accepted tells what the server makes of our TLS certificate.
func (a *authority) accepted(w *checks.Way, step client.Step) {
	own := a.server.TLS.Certificate()
	switch {
	case step.Err != nil:
		w.Broken(checks.Accepted, step.Err)
	case own == nil:
		a.OK(checks.Accepted, "the server answers without a client certificate")
	case !w.Asked:
		a.OK(checks.Accepted, "the server asked for no client certificate")
	default:
		a.OK(checks.Accepted, "the server asked for a certificate and answers %q", pki.DN(own.RawSubject))
	}
}

// ask tells what the server makes of a general message.
func (a *authority) ask(ctx context.Context) {
	sent := time.Now()
	info, err := a.server.Ask(ctx, a.NetworkTimeout, a.Dialer)
	if !info.Time.IsZero() { // it is in whole seconds, and was written between the two
		a.Clock(exitFailed, a.Now().Sub(info.Time)-time.Since(sent)/2-500*time.Millisecond, "CMP server")
	}
	var status *cmp.StatusError
	var check *cmp.CheckError
	switch {
	case err == nil:
		a.OK(checks.CMP, "the CA answers, and names %d of its certificates", len(info.CACerts))
		a.OK(checkCredential, "%s is accepted: the CA answers", a.credential())
		a.vouched(info)
	case errors.As(err, &status):
		a.OK(checks.CMP, "the server answers by a refusal: %v", status)
		a.refused(status, info)
	case errors.As(err, &check):
		a.doubted(check)
	default:
		a.silent(err)
	}
	because := "the answer has no messageTime"
	if a.Failed(checks.CMP) {
		because = "because the cmp check failed"
	}
	a.SkipRest(answerNames, because)
	a.inOrder()
}

// inOrder puts the answer's checks behind those of the way, as they are listed.
func (a *authority) inOrder() {
	slices.SortStableFunc(a.Checks, func(x, y checks.Check) int {
		return slices.Index(answerNames, x.Name) - slices.Index(answerNames, y.Name)
	})
}

// credential is what requests are protected with.
func (a *authority) credential() string {
	if chain := a.server.Signer.Certificates(); chain != nil {
		return fmt.Sprintf("the signature of %q", pki.DN(chain[0].RawSubject))
	}
	return "the secret (iak and rv)"
}

// credentialAdvice is what to do where the CA does not know us.
func (a *authority) credentialAdvice() string {
	if a.server.Signer.Certificates() != nil {
		return "check the certificate in authentication, and what the CA has for it; its log tells the reason"
	}
	return "check iak and rv in authentication, protection and recipientDN, and what the CA has for them; " +
		"its log tells the reason"
}

// refused interprets a refusal. It may be about who asks, which is what is to be found out, or about
// what is asked for: then whether the CA would accept the sender is known only if the refusal is
// protected with the secret.
func (a *authority) refused(status *cmp.StatusError, info cmp.Information) {
	doubt, _ := errors.AsType[*cmp.CheckError](info.Doubt)
	otherSecret := doubt != nil && doubt.Check == "MAC"
	switch {
	case status.FailInfo.Has(cmp.FailBadTime):
		a.Skip(checkCredential, "the server refuses the time of the message, whoever sends it")
		if info.Time.IsZero() {
			a.Fail(exitFailed, checks.Clock, status.Error(), "set this machine's clock, or the CMP server's, by NTP")
		}
	case status.RefusesSender():
		a.Fail(exitFailed, checkCredential, fmt.Sprintf("%s is refused: %v", a.credential(), status),
			a.credentialAdvice())
	case otherSecret:
		a.Fail(exitFailed, checkCredential, "the server protects its refusal with another secret: "+doubt.Error(),
			a.credentialAdvice())
	case info.MAC:
		a.OK(checkCredential, "the server has the same secret: its refusal is protected with it")
	default:
		a.Skip(checkCredential, "this server does not tell: it serves no general messages, and says so to anyone; "+
			"the first enrolment shows whether "+a.credential()+" is accepted")
	}
	switch {
	case doubt == nil:
		a.vouched(info)
	case otherSecret:
		a.Skip(checks.Anchors, "because the credential check failed")
	case doubt.Check == "protection" && doubt.Got == "none":
		if !a.anchorDates() {
			a.Skip(checks.Anchors, "this server does not protect its refusals, so they verify nothing")
		}
	default:
		a.untrusted(doubt)
	}
}

// doubted interprets an answer that is not believed.
func (a *authority) doubted(check *cmp.CheckError) {
	if check.Check == "protection" && !errors.Is(check, cmp.ErrNoAnchors) {
		a.Fail(exitFailed, checks.CMP, check.Error(),
			"have the CMP server protect its answers in that way, or correct protection in cmpServers.json")
		return
	}
	switch check.Check {
	case "MAC":
		a.OK(checks.CMP, "the server answers by a CMP message")
		a.Fail(exitFailed, checkCredential, "the server protects its answer with another secret: "+check.Error(),
			a.credentialAdvice())
		a.Skip(checks.Anchors, "because the credential check failed")
	case "messageTime":
		a.OK(checks.CMP, "the server answers by a CMP message")
		a.SkipRest(answerNames, "because the clock check failed")
	case "protection", "protection algorithm", "signature", "sender", "signer", "signer's chain", "signer's key usage",
		"signer's extended key usage":
		a.OK(checks.CMP, "the server answers by a CMP message")
		a.Skip(checkCredential, "because the trust anchors check failed")
		a.untrusted(check)
	default:
		a.Fail(exitFailed, checks.CMP, check.Error(),
			"this is no answer to what was asked: look for a cache or a proxy on the way, and at the log of the CA")
	}
}

// untrusted reports an answer that our anchors do not verify.
func (a *authority) untrusted(check *cmp.CheckError) {
	advice := "correct trustAnchors, issuerDN or signerDN: the answer is signed by somebody else than they say"
	if errors.Is(check, cmp.ErrNoAnchors) {
		advice = "give the CA's certificate in trustAnchors"
	}
	a.Fail(exitFailed, checks.Anchors, check.Error(), advice)
}

// vouched says what vouches for an answer.
func (a *authority) vouched(info cmp.Information) {
	anchors := a.server.TrustAnchors
	switch {
	case a.anchorDates():
	case info.OnlyONAP != nil:
		a.Warn(checks.Anchors, fmt.Sprintf("the answer is believed only because responseTrust is %q: %v",
			certservice.TrustONAP, info.OnlyONAP),
			"give the CA's certificate in trustAnchors: now anyone on the way to the CA can issue certificates")
	case info.Signer != nil:
		a.OK(checks.Anchors, "verify the answer, which is signed by %q", pki.DN(info.Signer.RawSubject))
	case len(anchors) == 0:
		a.OK(checks.Anchors, "there are none; the secret vouches for the answer")
	default:
		a.OK(checks.Anchors, "%s; the secret vouches for this answer", checks.Some(subjects(anchors)))
	}
}

// anchorDates reports anchors that are not valid now, and says whether there are any.
func (a *authority) anchorDates() bool {
	now := a.Now()
	var over []string
	for _, c := range a.server.TrustAnchors {
		if now.After(c.NotAfter) || now.Before(c.NotBefore) {
			over = append(over, fmt.Sprintf("%q (%s to %s)", pki.DN(c.RawSubject), pki.Stamp(c.NotBefore),
				pki.Stamp(c.NotAfter)))
		}
	}
	const advice = "replace them by the CA's current certificates, or check this machine's clock"
	switch {
	case len(over) == 0:
		return false
	case len(over) == len(a.server.TrustAnchors):
		a.Fail(exitFailed, checks.Anchors, "none is valid now: "+checks.Some(over), advice)
	default:
		a.Warn(checks.Anchors, "not valid now: "+checks.Some(over), advice)
	}
	return true
}

func subjects(certificates []*x509.Certificate) (names []string) {
	for _, c := range certificates {
		names = append(names, fmt.Sprintf("%q", pki.DN(c.RawSubject)))
	}
	return names
}

// silent reports that no CMP message came.
func (a *authority) silent(err error) {
	advice := "check url: a CMP server answers there"
	if transport, ok := errors.AsType[*cmp.TransportError](err); ok {
		switch {
		case transport.Timeout:
			advice = "look at the log of the CMP server, and at what it waits for"
		case transport.StatusCode == http.StatusNotFound:
			advice = "check the path in url: EJBCA has /ejbca/publicweb/cmp/ALIAS"
		case transport.StatusCode == http.StatusUnauthorized || transport.StatusCode == http.StatusForbidden:
			advice = "check tlsIdentity, and who may ask this server"
		}
	}
	a.Fail(exitFailed, checks.CMP, err.Error(), advice)
}
