// Package devca is a development certification authority: a root and an issuing CA that live in
// memory only and are made by every [New], behind an [http.Handler] that answers CMP (RFC 9810
// over HTTP after RFC 9811) as the lightweight profile RFC 9483 asks. It answers ir, cr, kur,
// p10cr, certConf, pollReq, rr and genm, protected by a shared secret or by a certificate that it
// issued itself. It takes the ONAP server's looser messages too: certReqIds other than 0, kur
// without oldCertID, and implicitConfirm without a value.
//
// It is strict where a client's mistake should show: proof of possession, transactionIDs, nonces,
// the certHash of a confirmation, the signer of an update. It misbehaves on request, see [Faults].
//
// It is for development and tests. It keeps nothing, publishes no revocation lists, knows one
// shared secret, and issues every name that is requested.
package devca

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/pki"
)

// The shared secret when none is configured: the one in the ONAP server's sample configuration, so
// that the sample works against this CA as it is. It is public, so a program that other machines
// can reach must not use it.
const (
	DefaultReference = "mypassword"
	DefaultSecret    = "mypassword"
)

// DefaultValidity is how long leaves are valid when nothing else is configured.
const DefaultValidity = time.Hour

// ResponseProtection says how answers to messages under the shared secret are protected. Answers
// to signed messages are always signed, by the issuing CA's key.
type ResponseProtection string

// The kinds of ResponseProtection.
const (
	// RespondMAC answers in kind: with the shared secret,
	// and the parameters of the request (RFC 9810, 5.1.3.1).
	RespondMAC ResponseProtection = "mac"
	// RespondSignature signs every answer, as EJBCA does by default.
	RespondSignature ResponseProtection = "signature"
)

// Config is what a CA is made from; the zero value is usable.
type Config struct {
	Reference          string             // of the shared secret, the senderKID of requests; "": DefaultReference
	Secret             []byte             // nil: DefaultSecret
	Validity           time.Duration      // of leaves, 1s or more; 0: DefaultValidity
	ResponseProtection ResponseProtection // "": RespondMAC
	// refuses usages that the kind of key cannot have, in place of leaving them out
	StrictKeyUsage bool
	Approval       bool     // requests wait until POST /approve
	Profiles       []string // of certificates, that requests may name; none: any
	Faults         Faults
	Now            func() time.Time // nil: time.Now
	Log            *slog.Logger     // nil: no log. The shared secret is in no record.
}

// CA is a certification authority. Its methods may be called concurrently.
type CA struct {
	config        Config
	root, issuing *x509.Certificate
	key           *ecdsa.PrivateKey // of issuing; the root's key is not kept
	macKeys       *cmp.MACKeys
	transactions  *transactions
	revocations   *revocations
	faults        atomic.Pointer[Faults]
	approved      atomic.Int64 // when requests were approved last, in nanoseconds of Unix time; 0: never
	counters      counters
}

// New makes a CA with a new root and a new issuing CA.
func New(config Config) (*CA, error) {
	if config.Reference == "" {
		config.Reference = DefaultReference
	}
	if config.Secret == nil {
		config.Secret = []byte(DefaultSecret)
	}
	if config.Validity == 0 {
		config.Validity = DefaultValidity
	}
	if config.ResponseProtection == "" {
		config.ResponseProtection = RespondMAC
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	if config.Validity < time.Second || config.Validity > MaxValidity {
		return nil, fmt.Errorf("validity of certificates is %s, want 1s to %s", config.Validity, MaxValidity)
	}
	if p := config.ResponseProtection; p != RespondMAC && p != RespondSignature {
		return nil, fmt.Errorf("response protection is %q, want %q or %q", p, RespondMAC, RespondSignature)
	}
	c := &CA{config: config, macKeys: cmp.NewMACKeys(config.Secret), revocations: newRevocations()}
	c.transactions = newTransactions(func(serial *big.Int, notAfter time.Time) {
		c.revoke(serial,
			notAfter, "never confirmed")
	})
	c.SetFaults(config.Faults)
	var err error
	if c.root, c.issuing, c.key, err = newAuthorities(config.Now()); err != nil {
		return nil, err
	}
	return c, nil
}

// Root returns the root certificate of this run.
func (c *CA) Root() *x509.Certificate { return c.root }

// Issuing returns the certificate of the CA that signs leaves and, where it signs them, answers.
func (c *CA) Issuing() *x509.Certificate { return c.issuing }

// RootPEM returns the root certificate as PEM, for clients that must trust it.
func (c *CA) RootPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.root.Raw})
}

// SetFaults replaces the faults for all messages that arrive from now on.
func (c *CA) SetFaults(faults Faults) { c.faults.Store(&faults) }

// Revoked says whether a certificate is revoked: by rr, by a confirmation that rejected it or did
// not fit it, or because no confirmation came.
func (c *CA) Revoked(serial *big.Int) bool {
	c.transactions.expire(c.config.Now())
	return c.revocations.has(serial)
}

func (c *CA) revoke(serial *big.Int, notAfter time.Time, reason string) bool {
	if !c.revocations.add(serial, notAfter, c.config.Now()) {
		return false
	}
	c.counters.revoked.Add(1)
	c.config.Log.Info("certificate revoked", "serial",
		pki.Serial(&x509.Certificate{SerialNumber: serial}), "reason", reason)
	return true
}

// Stats counts what a CA has done since it was made.
type Stats struct {
	Requests  uint64 // messages that parsed
	Issued    uint64 // certificates, updates among them
	Updated   uint64 // certificates issued for kur
	Confirmed uint64 // certificates confirmed, implicitly or by certConf
	Rejected  uint64 // requests answered with status rejection
	Errors    uint64 // messages answered with error
	Polls     uint64 // pollReqs answered with pollRep
	Revoked   uint64 // certificates revoked for any reason
}

type counters struct {
	requests, issued, updated, confirmed, rejected, errors, polls, revoked atomic.Uint64
}

// Stats returns the counts so far.
func (c *CA) Stats() Stats {
	n := &c.counters
	return Stats{
		Requests: n.requests.Load(), Issued: n.issued.Load(), Updated: n.updated.Load(), Confirmed: n.confirmed.Load(),
		Rejected: n.rejected.Load(), Errors: n.errors.Load(), Polls: n.polls.Load(), Revoked: n.revoked.Load(),
	}
}

// ejbcaPath is where EJBCA has its CMP aliases. Every alias is this CA.
const ejbcaPath = "/ejbca/publicweb/cmp/"

// wellKnown is where RFC 9811, 3.4 has CMP, and below it what RFC 9483, 6.1 adds.
const wellKnown = "/.well-known/cmp"

// ServeHTTP answers CMP over HTTP (RFC 9811, 3) at /, /pkix/ (as OpenSSL's and the ONAP server's
// users write it), /.well-known/cmp with the operations and names (p/{name}) below it, and
// /ejbca/publicweb/cmp/{alias}. A message that parses is answered with status 200 whatever the
// answer says, one that does not with 400 and an error message.
func (c *CA) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == approvePath && r.Method == http.MethodPost:
		c.approved.Store(c.config.Now().UnixNano())
		c.config.Log.Info("approved the requests that wait")
		w.WriteHeader(http.StatusNoContent)
		return
	case r.URL.Path == faultsPath && r.Method == http.MethodPost:
		c.changeFaults(w, r)
		return
	case !isServed(r.URL.Path):
		http.Error(w, "CMP is answered at /, /pkix/, /.well-known/cmp[/p/{name}][/{operation}] and "+ejbcaPath+
			"{alias}",
			http.StatusNotFound)
		return
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "CMP messages are sent with POST", http.StatusMethodNotAllowed)
		return
	case !cmp.IsMediaType(r.Header.Get("Content-Type")):
		http.Error(w, "CMP messages have the content type "+cmp.MediaType, http.StatusUnsupportedMediaType)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, cmp.MaxMessageSize))
	if err != nil {
		status := http.StatusBadRequest
		if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
			status = http.StatusRequestEntityTooLarge
		}
		http.Error(w, "the message could not be read: "+err.Error(), status)
		return
	}
	c.serve(w, r, body)
}

// Paths of those who test: where the requests that wait are approved, see Config.Approval, and where
// faults are ordered, with a body as ParseFaults reads it; empty: none.
const (
	approvePath = "/approve"
	faultsPath  = "/faults"
)

func (c *CA) changeFaults(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<12))
	var faults Faults
	if err == nil {
		faults, err = ParseFaults(string(text))
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c.SetFaults(faults)
	c.config.Log.Info("faults are ordered", "faults", string(text))
	w.WriteHeader(http.StatusNoContent)
}

// slowAnswer is the time to write an answer after a delay that was ordered.
const slowAnswer = 10 * time.Second

func (c *CA) serve(w http.ResponseWriter, r *http.Request, body []byte) {
	faults := *c.faults.Load()
	if faults.Slow > 0 {
		// The server's own limit is for answers that are not put off.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(faults.Slow + slowAnswer))
		select {
		case <-time.After(faults.Slow):
		case <-r.Context().Done():
			return
		}
	}
	if faults.Drop {
		panic(http.ErrAbortHandler) // the way to close the connection that net/http offers
	}
	status := http.StatusOK
	request, err := cmp.ParsePKIMessage(body)
	var answer *cmp.PKIMessage
	if err != nil {
		status = http.StatusBadRequest
		answer, err = c.answerUnreadable(err)
	} else {
		answer, err = c.answer(request, faults)
	}
	var der []byte
	if err == nil {
		der, err = answer.Marshal()
	}
	if err != nil {
		c.config.Log.Error("message could not be answered", "error", err.Error())
		http.Error(w, "the message could not be answered", http.StatusInternalServerError)
		return
	}
	if _, isCertificate := answer.Body.Content.(*cmp.CertRepMessage); isCertificate {
		faults.spoiled(func(s spoil) {
			if s.sent != nil {
				der = s.sent(der)
			}
		})
	}
	if request != nil && slices.Contains(faults.DropBodies, request.Body.Type) {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Type", cmp.MediaType)
	w.Header().Set("Content-Length", fmt.Sprint(len(der)))
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	// It fails when the client has gone.
	_, _ = w.Write(der)
}

// answerUnreadable answers what is not a PKIMessage, in a transaction of its own (RFC 9483, 3.6.4).
func (c *CA) answerUnreadable(reason error) (*cmp.PKIMessage, error) {
	c.counters.errors.Add(1)
	c.config.Log.Info("message could not be read", "error", reason.Error())
	now := c.config.Now()
	request := &cmp.PKIMessage{Header: cmp.PKIHeader{PVNO: cmp.PVNO2,
		Sender: cmp.DirectoryName(nil), TransactionID: cmp.NewNonce()}}
	e := &exchange{ca: c, request: request, now: now,
		header: request.Header.Answer(cmp.DirectoryName(c.issuing.RawSubject), now)}
	info := cmp.Rejection(reason.Error(), cmp.FailBadDataFormat)
	return e.protect(cmp.PKIBody{Type: cmp.BodyError, Content: &cmp.ErrorMsgContent{StatusInfo: info}})
}

func isServed(path string) bool {
	switch path {
	case "/", "/pkix", "/pkix/", wellKnown, wellKnown + "/":
		return true
	}
	if below, found := strings.CutPrefix(path, wellKnown+"/"); found {
		return isWellKnown(strings.Split(strings.TrimSuffix(below, "/"), "/"))
	}
	alias, found := strings.CutPrefix(path, ejbcaPath)
	return found && alias != "" && !strings.Contains(alias, "/")
}

// isWellKnown: operation, p/{name} or p/{name}/operation.
func isWellKnown(segments []string) bool {
	if segments[0] == "p" && len(segments) > 1 && segments[1] != "" {
		if segments = segments[2:]; len(segments) == 0 {
			return true
		}
	}
	return len(segments) == 1 && slices.Contains(cmp.OperationLabels, segments[0])
}
