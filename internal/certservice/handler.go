package certservice

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/internal/admission"
	"github.com/certfetcher/certfetcher/internal/mtls"
	"github.com/certfetcher/certfetcher/internal/policy"
	"github.com/certfetcher/certfetcher/internal/requestid"
)

// HandlerConfig configures a Handler. Pointers and functions are required.
type HandlerConfig struct {
	Directory Directory
	// ClientRoots returns the roots that client certificates must chain to;
	// called for every request, so that a truststore replaced while
	// connections are open takes effect at once. The pool must not be changed
	// once it was returned, and should be the same one until the roots change.
	ClientRoots func() *x509.CertPool
	Credentials Credentials   // "": CertificateCredential
	Tokens      TokenVerifier // nil where Credentials are certificates only
	Policy      *PolicyFile   // who may ask for what; nil: everyone for everything
	// Admins are the subjects, DER Names, that may ask for a reload where there is no policy.
	Admins [][]byte
	// Reloads read what else a reload reads again, beside Directory and Policy.
	Reloads     []func(trigger string) error
	Revocations *Revocations // that client certificates must not be among; nil: none are known
	MaxInFlight int          // enrolments and updates at the same time; 0: no bound
	// MaxInFlightPerClient bounds those of one client, by its certificate and address; 0: a
	// quarter of MaxInFlight.
	MaxInFlightPerClient int
	// MaxQueued is how many more may wait for their CA; 0: none, they are refused.
	MaxQueued  int
	MaxRSABits int           // of keys in requests
	CPU        *CPU          // shared with CMPOptions
	Timeout    time.Duration // for one enrolment or update, the authority's part included; 0: none
	Metrics    *Metrics
	// Identity is the service's own, which signs what it answers to CMP clients.
	Identity  func() *tls.Certificate
	Strangers *Strangers // logs requests of clients without a trusted certificate
	// NoStatus leaves out the status page, which shows addresses of CAs and names of the service.
	NoStatus bool
	Log      *slog.Logger
}

// Handler serves the REST API. It expects to stand behind TLS that asks for a client certificate
// (tls.RequestClientCert at least) and verifies that certificate itself.
type Handler struct {
	cfg       HandlerConfig
	clients   clientVerifier
	lanes     lanes
	admission *admission.Queue[clientKey] // to the CAs
	reloads   *rounds[struct{}]
	scrapes   *rounds[[]byte]
	status    statusPage
	record    record // of requests, for the status page
	texts     *texts
	now       func() time.Time
}

// NewHandler returns the handler of the API.
func NewHandler(cfg HandlerConfig) *Handler {
	cfg.Log = requestid.Logger(cfg.Log)
	h := &Handler{
		cfg: cfg, now: time.Now,
		clients: clientVerifier{revocations: cfg.Revocations},
		lanes:   lanes{of: map[clientKey]*lane{}},
		admission: admission.New[clientKey](admission.Config{
			MaxInFlight: cfg.MaxInFlight, MaxPerClient: cfg.MaxInFlightPerClient, MaxQueued: cfg.MaxQueued,
			Now: time.Now, Random: rand.Float64,
		}),
		scrapes: newScrapes(cfg.Metrics.text),
		texts:   newTexts(),
	}
	h.status = newStatusPage(h)
	h.reloads = newReloads(func() error { return h.Reload("request") })
	cfg.Metrics.observeAdmission(h.admission)
	return h
}

// Reload reads the configuration again, all of it whatever fails.
func (h *Handler) Reload(trigger string) error {
	errs := []error{h.cfg.Directory.Reload(trigger)}
	if h.cfg.Policy != nil {
		errs = append(errs, h.cfg.Policy.Reload(trigger))
	}
	for _, reload := range h.cfg.Reloads {
		errs = append(errs, reload(trigger))
	}
	return mtls.JoinErrors(errs...)
}

const messageNotReady = "No valid CMPv2 configuration is loaded"

// answer is written as a whole once the handler is done, so
// that a panic can still become a clean 500.
type answer struct {
	status int
	header map[string]string
	body   []byte
	fault  *errorBody // the body, in place of body; nil: none
}

func (a answer) write(w http.ResponseWriter, method string) error {
	if a.fault != nil {
		a.body = marshal(a.fault)
	}
	header := w.Header()
	for name, value := range a.header {
		header.Set(name, value)
	}
	header.Set("Content-Length", strconv.Itoa(len(a.body)))
	header.Set("Cache-Control", "no-store")
	w.WriteHeader(a.status)
	if method == http.MethodHead {
		return nil
	}
	_, err := w.Write(a.body)
	return err
}

type errorBody struct {
	ErrorMessage string `json:"errorMessage"`
	Reason       string `json:"reason,omitempty"` // for programs
	RequestID    string `json:"requestId,omitempty"`
}

type issuedBody struct {
	CertificateChain    []string `json:"certificateChain"`
	TrustedCertificates []string `json:"trustedCertificates"`
}

type statusBody struct {
	Status string `json:"status"`
}

// jsonAnswer is an answer without further headers.
func jsonAnswer(status int, body any) answer {
	return answer{status: status, header: jsonHeader, body: marshal(body)}
}

// jsonHeader is shared, and must not be changed.
var jsonHeader = map[string]string{"Content-Type": "application/json"}

func marshal(body any) []byte {
	encoded, err := json.Marshal(body)
	if err != nil { // the three types above always marshal
		panic(err)
	}
	return encoded
}

func errorAnswer(status int, message string) answer {
	return faultAnswer(status, errorBody{ErrorMessage: message})
}

func faultAnswer(status int, body errorBody) answer {
	return answer{status: status, header: map[string]string{"Content-Type": "application/json"}, fault: &body}
}

// identify gives a request its id, the client's own where that is one.
func identify(r *http.Request) (identified *http.Request, id string) {
	if id = requestid.Of(r.Header); id == "" {
		id = requestid.New()
	}
	return r.WithContext(requestid.With(r.Context(), id, requestid.TraceOf(r.Header))), id
}

// ServeHTTP answers one request and writes its audit line.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := h.now()
	e := &event{path: r.URL.Path, method: r.Method, remote: r.RemoteAddr, from: clientOf(r.TLS, r.RemoteAddr)}
	leave, err := h.lanes.enter(r.Context(), e.from)
	if err != nil {
		return // the client has disconnected
	}
	defer leave()
	e.leaveLane = leave
	r, id := identify(r)
	e.requestID = id
	a := h.answer(r, e)
	w.Header().Set(requestid.Header, id)
	if a.fault != nil {
		a.fault.RequestID = id
	}

	e.writeErr = a.write(w, r.Method)
	e.status, e.duration = a.status, h.now().Sub(start)
	h.cfg.Metrics.observeRequest(e)
	h.record.add(e, start)
	if e.outcome == outcomeUnauthorized && !h.cfg.Strangers.admit(strangerRequest, e.remote) {
		return
	}
	e.log(r.Context(), h.cfg.Log, h.texts)
}

// authenticate says who the client is. What was found wrong before the request came to the handler
// is not verified again, as verifying costs processor time.
func (h *Handler) authenticate(r *http.Request) Authentication {
	if found, ok := r.Context().Value(refusalKey{}).(Authentication); ok {
		return found
	}
	return h.Authenticate(r.TLS, r.Header)
}

// answer answers a request; a panic becomes the answer 500 to this request alone.
func (h *Handler) answer(r *http.Request, e *event) (a answer) {
	defer func() {
		if v := recover(); v != nil {
			h.cfg.Log.ErrorContext(r.Context(), "panic while serving a request",
				"panic", panicText(v), "stack", string(debug.Stack()))
			e.outcome, e.reason = outcomePanic, "panic"
			a = errorAnswer(http.StatusInternalServerError, "Internal server error")
		}
	}()

	endpoint, caName, known := findEndpoint(r.URL)
	e.operation, e.probe, e.caName = endpoint.operation, endpoint.probe(), caName

	client := h.authenticate(r)
	e.client, e.account = client.certificate, client.account
	if client.refused() {
		return h.refuseClient(&client, e)
	}
	e.who, e.from = client.client(), client.key(e.from)
	if headerBytes(r) > MaxHeaderBytes {
		e.outcome = outcomeTooLarge
		return errorAnswer(http.StatusRequestHeaderFieldsTooLarge, messageTooLarge)
	}
	if !known {
		e.outcome = outcomeNotFound
		return errorAnswer(http.StatusNotFound, "There is nothing at this path")
	}
	if !endpoint.allows(r.Method) {
		e.outcome = outcomeBadMethod
		return endpoint.methodNotAllowed()
	}
	e.trial = byDoctor(r)
	e.outcome = outcomeOK
	return endpoint.serve(h, r, caName, e)
}

// byDoctor recognises the requests of certfetcher doctor, none of which carries a CSR. Another
// client that claims to be it gains nothing: without a CSR nothing can be issued, and a client
// that is not trusted is logged as any other.
func byDoctor(r *http.Request) bool {
	return strings.HasSuffix(r.UserAgent(), " (doctor)") && r.Header.Get(headerCSR) == ""
}

// panicText is the text of a runtime error; of other values
// only the type, as they may hold secrets.
func panicText(v any) string {
	if err, ok := v.(runtime.Error); ok {
		return err.Error()
	}
	return fmt.Sprintf("%T", v)
}

// admit finds the authority for a request and takes a place in its queue, or says why that is not
// to be. It comes first: refusing has to cost little.
func (h *Handler) admit(r *http.Request, caName string, urgent bool, e *event) (Authority, *place, *answer) {
	fail := func(a answer) (Authority, *place, *answer) { return nil, nil, &a }
	if !h.cfg.Directory.Ready() {
		// Not 404: a client takes that as final, and this is temporary.
		return fail(unavailableAnswer(e, outcomeNotReady, messageNotReady))
	}
	authority, share, ok := h.cfg.Directory.Lookup(caName)
	if !ok {
		e.outcome = outcomeUnknownCA
		return fail(errorAnswer(http.StatusNotFound, "Certification authority not found for given CAName"))
	}
	e.caKnown = true
	mine, refused := h.queue(caName, share, e.from, preferWait(r.Header), urgent)
	if refused != nil {
		return fail(h.refusalAnswer(e, refused))
	}
	return authority, mine, nil
}

// certify has a certificate issued: a new one, or in an update one that replaces another.
func (h *Handler) certify(r *http.Request, caName string, e *event) answer {
	authority, queued, failed := h.admit(r, caName, false, e)
	if failed != nil {
		return *failed
	}
	answered := false
	defer func() { queued.leave(answered) }()
	ctx, cancel := h.withTimeout(r.Context())
	defer cancel()
	mine := turns{ctx, h.cfg.CPU, e.from}
	update := e.operation == operationUpdate
	request, fault, err := h.parse(r.Header, update, mine)
	e.csr = request.CSR
	switch {
	case err != nil:
		return h.overloadAnswer(e, limitCPU, "waiting for a processor: "+err.Error())
	case fault != nil:
		e.outcome, e.reason = outcomeBadRequest, fault.reason
		return errorAnswer(http.StatusBadRequest, fault.message)
	}
	if refused, ok := h.forbid(e, policy.Operation(e.operation), request.asked); !ok {
		return refused
	}
	request.Key, request.OldKey = mine.signer(request.Key), mine.signer(request.OldKey)
	call := authority.Enroll
	if update {
		call = authority.Update
	}
	e.leaveLane()
	if err := queued.await(ctx); err != nil {
		return queued.tooLate(e, err)
	}
	start := h.now()
	issued, err := call(ctx, request)
	answered = hasAnswered(err)
	h.cfg.Metrics.observeAuthority(e, h.now().Sub(start), err)
	if err == nil && len(issued.Chain) == 0 {
		err = errors.New("the answer holds no certificate")
	}
	if err != nil {
		return failureAnswer(e, err)
	}
	e.outcome, e.issued = outcomeIssued, issued.Chain[0]
	return jsonAnswer(http.StatusOK, issuedBody{
		append([]string{pemText(issued.Chain[0])}, h.texts.pem(issued.Chain[1:])...), h.texts.pem(issued.Trusted)})
}

// hasAnswered tells whether an authority has done its work, by the error of a call.
func hasAnswered(err error) bool {
	_, refused := errors.AsType[*RefusedError](err)
	return err == nil || refused
}

// parse reads a request when it is the client's turn to
// compute. The error is that of waiting for the turn.
func (h *Handler) parse(header http.Header, update bool, mine turns) (Request, *requestError, error) {
	leave, err := mine.cpu.enter(mine.ctx, mine.client, false)
	if err != nil {
		return Request{}, nil, err
	}
	defer leave()
	request, fault := parseRequest(header, update, h.cfg.MaxRSABits)
	return request, fault, nil
}

// failureAnswer answers for an authority that refused or
// could not be reached, in the ONAP server's words.
func failureAnswer(e *event, err error) answer {
	e.outcome, e.reason, e.told = outcomeFailed, err.Error(), err.Error()
	message := "Exception occurred during call to cmp client: " + err.Error()
	if refused, ok := errors.AsType[*RefusedError](err); ok {
		message = "CMPv2 server returned following error: " + refused.Error()
		e.outcome = outcomeRefused
		if refused.Err != nil {
			e.reason = refused.Err.Error()
		}
	}
	failure, ok := errors.AsType[*FailedError](err)
	if !ok {
		return errorAnswer(http.StatusInternalServerError, message)
	}
	if failure.Text != "" {
		e.reason = failure.Text + ": " + failure.Err.Error()
	}
	a := faultAnswer(http.StatusInternalServerError, errorBody{ErrorMessage: message, Reason: failure.Reason})
	if failure.RetryAfter > 0 {
		a.header["Retry-After"] = seconds(failure.RetryAfter)
	}
	return a
}

// seconds is a time to wait as Retry-After has it: not less.
func seconds(wait time.Duration) string { return strconv.Itoa(int(math.Ceil(wait.Seconds()))) }

// texts are of certificates that come again and again.
type texts struct {
	authorities bounded[*x509.Certificate, string] // their PEM
	clients     bounded[[32]byte, slog.Attr]       // what the audit line has of them, by their SHA-256
}

// maxAuthorities bounds those whose PEM is kept; each CA's client shares its certificates between answers.
const maxAuthorities = 64

func newTexts() *texts {
	var t texts
	t.authorities.most, t.clients.most = maxAuthorities, maxVerified
	return &t
}

// pem is the PEM of authorities.
func (t *texts) pem(authorities []*x509.Certificate) []string {
	texts := make([]string, len(authorities)) // never nil, which JSON would call null
	for i, cert := range authorities {
		texts[i] = t.authorities.get(cert, func() string { return pemText(cert) })
	}
	return texts
}

func pemText(cert *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
}
