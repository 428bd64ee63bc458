// Package devca is a development certification authority: a root and an issuing CA that live in memory
// only and are made by every [New], behind an [http.Handler] that answers CMP (RFC 9810 over HTTP
// after RFC 9811) as the lightweight profile RFC 9483 asks. It answers ir, cr, kur, p10cr, certConf,
// pollReq, rr and genm, protected by a shared secret or by a certificate that it issued itself. It takes
// the ONAP server's looser messages too: certReqIds other than 0, kur without oldCertID, and
// implicitConfirm without a value.
//
// It is strict where a client's mistake should show: proof of possession, transactionIDs, nonces, the
// certHash of a confirmation, the signer of an update. It misbehaves on request, see [Faults].
//
// It is for development and tests. It keeps nothing, publishes no revocation lists, knows one shared
// secret, and issues every name that is requested.
package devca

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"sync/atomic"
	"time"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/pki"
)

// The shared secret when none is configured: the one in the ONAP server's sample configuration, so that
// the sample works against this CA as it is. It is public, so a program that other machines can reach
// must not use it.
const (
	DefaultReference = "mypassword"
	DefaultSecret    = "mypassword"
)

// DefaultValidity is how long leaves are valid when nothing else is configured.
const DefaultValidity = time.Hour

// ResponseProtection says how answers to messages under the shared secret are protected. Answers to signed
// messages are always signed, by the issuing CA's key.
type ResponseProtection string

// The kinds of ResponseProtection.
const (
	// RespondMAC answers in kind: with the shared secret, and the parameters of the request (RFC 9810, 5.1.3.1).
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

// Revoked says whether a certificate is revoked: by rr, by a confirmation that rejected it or did not fit
// it, or because no confirmation came.
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
