package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/certfetcher/certfetcher/client"
	"github.com/certfetcher/certfetcher/internal/checks"
	"github.com/certfetcher/certfetcher/internal/config"
	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/mtls"
	"github.com/certfetcher/certfetcher/internal/pki"
)

// way is the way to the CertService, or to a CMP server.
type way struct {
	*doctor
	checks.Way
	identity *mtls.Identity
}

func (d *doctor) newWay(diagnosis *client.Diagnosis, identity *mtls.Identity) *way {
	w := &way{doctor: d, identity: identity, Way: checks.Way{
		List: &d.List, Diagnosis: diagnosis, Now: d.Now, Timeout: d.NetworkTimeout, Lacking: d.lacking,
		ExitCode: enroll.StageConnection.ExitCode(), Peer: "CertService", Trusted: "TRUSTSTORE_PATH",
	}}
	w.Proxied, w.Answered, w.Ended = w.proxy, w.answer, w.clock
	return w
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
	w := d.newWay(diagnosis, identity)
	if !w.Follow(networkChecks) {
		return
	}
	w.ready()
	w.caName()
	w.clock()
	d.skipRest(networkChecks, "the answer has no Date")
}

// proxy does not show the proxy's user name and password.
func (w *way) proxy(step client.Step) {
	switch {
	case step.Err != nil:
		// The error may quote the variable, which may hold a password.
		w.fail(enroll.StageConnection, checkProxy, "the proxy in the environment is not a URL",
			"correct HTTPS_PROXY, or name the CertService's host in NO_PROXY")
	case w.Diagnosis.Proxy == nil:
		w.ok(checkProxy, "none applies to %s", w.URL.Host)
	default:
		w.ok(checkProxy, "HTTPS_PROXY leads through %s://%s, which resolves the name %s; NO_PROXY would exempt it",
			w.Diagnosis.Proxy.Scheme, w.Diagnosis.Proxy.Host, w.URL.Hostname())
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
		w.Broken(checkAccepted, step.Err)
		w.doctor.Checks[len(w.doctor.Checks)-1].Found += "; it asks for one of other CAs"
	case step.Err != nil:
		w.Broken(checkAccepted, step.Err)
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
	if w.Diagnosis.Clock != nil {
		w.Way.List.Clock(enroll.StageVerification.ExitCode(), *w.Diagnosis.Clock, w.Peer)
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
	other := &doctor{Options: d.Options, List: checks.List{Expected: Expected}, lacking: d.lacking}
	other.Config = &cfg
	other.Faults = slices.DeleteFunc(slices.Clone(d.Faults),
		func(f config.Fault) bool { return f.Variable == "REQUEST_URL" })
	other.network(ctx, identity)

	worst := checks.Check{Status: checks.OK, Found: target + " leads to a CertService that accepts us"}
	if identity == nil {
		worst = checks.Check{Status: checks.Skipped,
			Found: "not checked beyond TCP, because the " + d.lacking + " cannot be used"}
	}
	for _, status := range []checks.Status{checks.Failed, checks.Warning} {
		i := slices.IndexFunc(other.Checks, func(c checks.Check) bool {
			return c.Status == status && c.Name != checkClock
		})
		if i >= 0 {
			worst = other.Checks[i]
			worst.Found = fmt.Sprintf("UPDATE_URL %s, %s: %s", target, worst.Name, worst.Found)
			break
		}
	}
	named := strings.NewReplacer("REQUEST_URL", "UPDATE_URL", "ends in /v1/certificate/",
		"ends in /v1/certificate-update/")
	worst.Found, worst.Advice = named.Replace(worst.Found), named.Replace(worst.Advice)
	d.Add(checkUpdate, worst)
}

// failedWay is the first failed check on the way to the
// CertService, as far as to its answers; or "".
func (d *doctor) failedWay() string {
	way := networkChecks[:slices.Index(networkChecks, checkService)]
	for _, c := range d.Checks {
		if c.Status == checks.Failed && slices.Contains(way, c.Name) {
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
