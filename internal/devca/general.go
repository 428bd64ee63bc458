package devca

import (
	"bytes"
	"fmt"
	"math/big"
	"sync"
	"time"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/pki"
)

// inform answers genm. Of info types that are not known nothing is said (RFC 9810, 5.3.20).
func (e *exchange) inform(asked cmp.GeneralContent) (cmp.PKIBody, error) {
	answer := cmp.GeneralContent{}
	if e.request.Body.Type != cmp.BodyGenM {
		return cmp.PKIBody{}, refuse(cmp.FailBadRequest,
			"a message of kind %s cannot be answered here", e.request.Body.Type)
	}
	if _, ok := asked.Value(cmp.OIDCACerts); ok { // RFC 9483, 4.3.1
		value, err := cmp.MarshalCACerts([][]byte{e.ca.issuing.Raw, e.ca.root.Raw})
		if err != nil {
			return cmp.PKIBody{}, fmt.Errorf("encoding caCerts: %w", err)
		}
		answer = append(answer, cmp.InfoTypeAndValue{Type: cmp.OIDCACerts, Value: value})
	}
	if held, ok := asked.Value(cmp.OIDRootCACert); ok { // RFC 9483, 4.3.2
		// No value means no update. A client with the root of an earlier start gets the new one
		// without a link to it, because the old key is gone.
		update := cmp.InfoTypeAndValue{Type: cmp.OIDRootCAKeyUpdate}
		if !bytes.Equal(held, e.ca.root.Raw) {
			var err error
			if update.Value, err = (cmp.RootCAKeyUpdate{NewWithNew: e.ca.root.Raw}).Marshal(); err != nil {
				return cmp.PKIBody{}, fmt.Errorf("encoding rootCaKeyUpdate: %w", err)
			}
		}
		answer = append(answer, update)
	}
	// No value means that nothing is demanded of templates,
	// and that there are no CRLs (RFC 9483, 4.3.3 and 4.3.4).
	if _, ok := asked.Value(cmp.OIDCertReqTemplate); ok {
		answer = append(answer, cmp.InfoTypeAndValue{Type: cmp.OIDCertReqTemplate})
	}
	if _, ok := asked.Value(cmp.OIDCRLStatusList); ok {
		answer = append(answer, cmp.InfoTypeAndValue{Type: cmp.OIDCRLs})
	}
	return cmp.PKIBody{Type: cmp.BodyGenP, Content: answer}, nil
}

// revoke answers rr (RFC 9483, 4.2).
func (e *exchange) revoke(asked cmp.RevReqContent) (cmp.PKIBody, error) {
	if len(asked) != 1 {
		return cmp.PKIBody{}, refuse(cmp.FailBadRequest, "rr names %d certificates, want one", len(asked))
	}
	info := cmp.PKIStatusInfo{Status: cmp.StatusAccepted}
	if err := e.revokeOne(asked[0]); err != nil {
		no := err.(*refusal) // revokeOne returns nothing else
		e.ca.counters.rejected.Add(1)
		info = no.info
	}
	content := &cmp.RevRepContent{Status: []cmp.PKIStatusInfo{info}}
	if template := asked[0].CertDetails; template.Issuer != nil && template.SerialNumber != nil {
		content.RevCerts = []cmp.CertID{{Issuer: cmp.DirectoryName(template.Issuer),
			SerialNumber: template.SerialNumber}}
	}
	return cmp.PKIBody{Type: cmp.BodyRP, Content: content}, nil
}

func (e *exchange) revokeOne(details cmp.RevDetails) error {
	template := details.CertDetails
	if e.faults.Reject {
		return e.orderedRejection()
	}
	if template.SerialNumber == nil || !pki.SameName(template.Issuer, e.ca.issuing.RawSubject) {
		return refuse(cmp.FailBadCertID, "rr does not name a certificate by this CA as issuer and a serial number")
	}
	notAfter := e.ca.issuing.NotAfter // no certificate lives longer
	if signer := e.by.signer; signer != nil {
		// The holder of the shared secret acts as a registration
		// authority; others may only revoke their own.
		if signer.SerialNumber.Cmp(template.SerialNumber) != 0 {
			return refuse(cmp.FailNotAuthorized, "rr is signed by another certificate than it names")
		}
		notAfter = signer.NotAfter
	}
	if e.ca.revocations.has(template.SerialNumber) {
		return refuse(cmp.FailCertRevoked, "the certificate is revoked already")
	}
	if !e.ca.revoke(template.SerialNumber, notAfter, "asked for by rr") {
		return refuse(cmp.FailSystemUnavail, "too many certificates are revoked")
	}
	return nil
}

// maxRevocations bounds the memory for revoked certificates.
const maxRevocations = 100_000

// revocations are the certificates that are revoked and have not yet
// expired. Certificates that are not revoked need no record: the
// issuing key, which is new at every start, has signed no others.
type revocations struct {
	mu      sync.Mutex
	expires map[string]time.Time // by serial number
}

func newRevocations() *revocations { return &revocations{expires: make(map[string]time.Time)} }

// add returns false when the certificate is revoked already, or there is no room.
func (r *revocations) add(serial *big.Int, notAfter, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, revoked := r.expires[string(serial.Bytes())]; revoked {
		return false
	}
	if len(r.expires) >= maxRevocations {
		for key, expires := range r.expires {
			if expires.Before(now) {
				delete(r.expires, key)
			}
		}
	}
	if len(r.expires) >= maxRevocations {
		return false
	}
	r.expires[string(serial.Bytes())] = notAfter
	return true
}

func (r *revocations) has(serial *big.Int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, revoked := r.expires[string(serial.Bytes())]
	return revoked
}
