package doctor

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/mtls"
)

// unknownCA is a CA name that nobody has. It stands in the server's log, and so says who asked.
const unknownCA = "certfetcher-doctor-asks-for-a-ca-that-does-not-exist"

// The clock's bounds. More than the larger one behind, and a new certificate is refused as not yet valid.
const (
	skewWarning = time.Minute
	skewFailed  = 5 * time.Minute
)

// service checks what answers at the end of the way.
type service struct {
	*doctor
	*conversation
	identity *mtls.Identity
}

func newService(d *doctor, target, proxy *url.URL, identity *mtls.Identity) *service {
	return &service{doctor: d, conversation: newConversation(d, target, proxy, identity), identity: identity}
}

func (s *service) check(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, s.NetworkTimeout)
	err := s.connect(limited)
	cancel()

	shown := s.shown(err)
	if len(shown) == 0 {
		found, advice := s.handshakeFailure(err)
		s.fail(enroll.StageConnection, checkTLS, found, advice)
		s.skipRest(networkChecks, "because the tls check failed")
		return
	}
	s.handshake()
	moment, trusted := s.certificate(shown)
	if !trusted {
		if !moment.IsZero() {
			s.clockAt(ctx, moment)
		}
		s.skipRest(networkChecks, "because the server is not trusted")
		return
	}
	if err != nil {
		s.refused(err)
		s.skipRest(networkChecks, "because the client accepted check failed")
		return
	}
	s.answers(ctx)
}

// refused reports an error that came when the server had been trusted: it has something against us.
func (s *service) refused(err error) {
	alert, alerted := alertOf(err)
	switch {
	case !alerted && s.late(err):
		s.fail(enroll.StageConnection, checkAccepted, "connected, but there is "+s.reason(err), "see the log of the CertService, and whether something on the way holds the request back")
		return
	case !alerted:
		s.fail(enroll.StageConnection, checkAccepted, "the server ended the connection when it had seen our certificate: "+s.reason(err),
			s.ownFault("see its log; it may refuse the certificate in KEYSTORE_PATH"))
		return
	}
	found, advice := "the server refuses our certificate: "+alert, "check KEYSTORE_PATH (issuer, dates, clientAuth) and the truststore of the CertService"
	switch alert {
	case "unknown certificate authority":
		advice = "add the CA that issued the certificate in KEYSTORE_PATH to the truststore of the CertService, or use a certificate that it knows"
	case "expired certificate":
		advice = "have a new certificate issued, and replace the file in KEYSTORE_PATH"
	case "revoked certificate":
		advice = "it is revoked: replace the file in KEYSTORE_PATH"
	}
	if s.mismatch {
		found += "; it asks for one of other CAs"
	}
	s.fail(enroll.StageConnection, checkAccepted, found, s.ownFault(advice))
}

// ownFault is what to do about a refusal: what is known here to be wrong with our certificate comes before what the
// other side may have against it.
func (s *service) ownFault(advice string) string {
	if problems := s.identity.Problems(s.Now()); len(problems) > 0 {
		return "replace the file in KEYSTORE_PATH: " + strings.Join(problems, "; ")
	}
	return advice
}

// answers asks for a certificate without saying which, which every server refuses. How it does so tells the rest.
func (s *service) answers(ctx context.Context) {
	name, fault := s.Config.Request.CAName, s.faulty("CA_NAME")
	if fault != "" {
		name = unknownCA
	}
	a, ok := s.accepted(ctx, name)
	if !ok {
		s.skipRest(networkChecks, "because the client accepted check failed")
		return
	}
	s.ready(ctx)
	if fault == "" {
		s.caName(ctx, a)
	} else {
		s.skip(checkCAName, fault+" has a fault")
	}
	s.clock(a)
}

// unknownCAMessage is by what the ONAP server and ours tell a CA that they do not know from a path that they do not know.
const unknownCAMessage = "Certification authority not found for given CAName"

func (s *service) caURL(caName string) *url.URL { return s.target.JoinPath(caName) }

// ask is get with the time limit of one check.
func (s *service) ask(ctx context.Context, u *url.URL) (answer, error) {
	limited, cancel := context.WithTimeout(ctx, s.NetworkTimeout)
	defer cancel()
	return s.get(limited, u)
}

// accepted checks that the server answers at all, now that it has seen our certificate.
func (s *service) accepted(ctx context.Context, caName string) (answer, bool) {
	a, err := s.ask(ctx, s.caURL(caName))
	subject := s.identity.Certificate.Leaf.Subject
	switch {
	case err != nil:
		s.refused(err)
		return a, false
	case !s.asked && !s.Config.Request.AllowNoClientAuth:
		s.fail(enroll.StageConnection, checkAccepted,
			fmt.Sprintf("the server never asked for a client certificate; it answers %s", a.said()),
			"certfetcher sends it nothing: have TLS passed through to the CertService by what ends it on the way "+
				"(a proxy, a load balancer, a service mesh), check REQUEST_URL and HTTPS_PROXY, "+
				"or set ALLOW_NO_CLIENT_AUTH=true if this is meant")
		s.clock(a)
		return a, false
	case a.status == http.StatusUnauthorized:
		s.fail(enroll.StageConnection, checkAccepted, fmt.Sprintf("the CertService refuses %q, issued by %q: %s", subject, s.identity.Certificate.Leaf.Issuer, a.said()),
			s.ownFault("add the CA that issued the certificate in KEYSTORE_PATH to the truststore of the CertService; "+
				"its log tells the reason"))
		s.clock(a)
		return a, false
	case !s.asked:
		s.warn(checkAccepted, fmt.Sprintf("the server never asked for a client certificate, "+
			"which ALLOW_NO_CLIENT_AUTH allows; it answers %s", a.said()),
			"unset ALLOW_NO_CLIENT_AUTH when TLS is passed through to the CertService")
	default:
		s.ok(checkAccepted, "the server asked for a certificate and answers %q", subject)
	}
	return a, true
}

// ready asks whether the CertService is ready to work, of the ONAP server and ours alike.
func (s *service) ready(ctx context.Context) {
	path := strings.TrimSuffix(strings.TrimRight(s.target.Path, "/"), "-update")
	prefix, ok := strings.CutSuffix(path, "/v1/certificate")
	if !ok {
		s.skip(checkService, "where it says that it is ready does not follow from the path in REQUEST_URL")
		return
	}
	path = prefix + "/ready"
	a, err := s.ask(ctx, &url.URL{Scheme: s.target.Scheme, Host: s.target.Host, Path: path})
	if err == nil && a.status == http.StatusNotFound {
		path = prefix + "/actuator/health"
		a, err = s.ask(ctx, &url.URL{Scheme: s.target.Scheme, Host: s.target.Host, Path: path})
	}
	const advice = "see the log of the CertService, and its cmpServers.json"
	switch {
	case err != nil:
		s.fail(enroll.StageConnection, checkService, fmt.Sprintf("no answer to GET %s: %s", path, s.reason(err)), advice)
	case a.status == http.StatusOK:
		s.ok(checkService, "ready (GET %s)", path)
	case a.status == http.StatusServiceUnavailable:
		s.fail(enroll.StageCertService, checkService, fmt.Sprintf("not ready: GET %s is answered by %s", path, a.said()), advice)
	case a.status == http.StatusNotFound:
		s.skip(checkService, "not told by this server")
	default:
		s.warn(checkService, fmt.Sprintf("GET %s is answered by %s", path, a.said()), advice)
	}
}

// caName interprets the answer for the configured CA. A server that looks for the CA before it looks at the
// headers, as ours does, answers 404 for an unknown one; one that looks at the headers first, as the ONAP
// server does, answers 400 for any. A name that cannot exist tells the two apart.
func (s *service) caName(ctx context.Context, a answer) {
	name := s.Config.Request.CAName
	switch {
	case a.status == http.StatusNotFound && a.message == unknownCAMessage:
		s.fail(enroll.StageCertService, checkCAName, fmt.Sprintf("%q is not known: %s", name, a.said()), "correct CA_NAME, or add it to the cmpServers.json of the CertService")
		return
	case a.status == http.StatusNotFound:
		s.fail(enroll.StageCertService, checkCAName, fmt.Sprintf("the path of REQUEST_URL leads nowhere: GET /%s is answered by %s", strings.TrimPrefix(s.caURL(name).Path, "/"), a.said()),
			"correct the path in REQUEST_URL; that of a CertService ends in /v1/certificate/")
		return
	case a.status >= 300 && a.status < 400:
		s.fail(enroll.StageCertService, checkCAName, fmt.Sprintf("the server redirects: %s to %q", a.said(), a.location), "correct REQUEST_URL: redirects are not followed, as the request carries a private key")
		return
	case a.status != http.StatusBadRequest:
		s.fail(enroll.StageCertService, checkCAName, fmt.Sprintf("a request without a CSR is answered by %s, want 400 Bad Request", a.said()),
			"see the log of the CertService, if it is one: check REQUEST_URL")
		return
	}
	control, err := s.ask(ctx, s.caURL(unknownCA))
	if err == nil && control.status == http.StatusNotFound {
		s.ok(checkCAName, "%q is known", name)
		return
	}
	s.skip(checkCAName, fmt.Sprintf("whether %q is known is not told by this server without a CSR", name))
}

func (s *service) clock(a answer) {
	if !a.dated {
		s.skip(checkClock, "the answer has no Date")
		return
	}
	const advice = "set this machine's clock, or the CertService's, by NTP; in a container it is the node's"
	apart, side := a.ahead.Abs(), "ahead of"
	if a.ahead < 0 {
		side = "behind"
	}
	text := fmt.Sprintf("%s %s the CertService's", apart.Round(time.Second), side)
	switch {
	case apart > skewFailed:
		s.fail(enroll.StageVerification, checkClock, text, advice+"; more than 5 minutes make new certificates unusable")
	case apart > skewWarning:
		s.warn(checkClock, text, advice)
	case apart < 2*time.Second:
		s.ok(checkClock, "in step with the CertService's")
	default:
		s.ok(checkClock, "%s", text)
	}
}
