package cmp

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// enrol sends a request for a certificate and sees it through: polling, checks, confirmation
// (RFC 9483, 4.1.1).
func (t *transaction) enrol(ctx context.Context, body PKIBody, csr *x509.CertificateRequest) (Result, error) {
	defer t.end()
	answer, err := t.exchange(ctx, body)
	if err != nil {
		return Result{}, err
	}
	response, answer, err := t.awaitDecision(ctx, answer, body.Type)
	if err != nil {
		return Result{}, err
	}
	if err := checkGranted(response); err != nil {
		return Result{}, err
	}
	// A grant that was not asked for changes nothing: we still confirm (RFC 9810, 5.1.1.1).
	implicit := t.c.cfg.ImplicitConfirm && answer.Header.ImplicitConfirm()
	certificate, result, err := t.evaluate(answer, response, csr)
	if err != nil {
		if implicit {
			t.giveBack(ctx, certificate, csr)
		} else {
			t.reject(ctx, certificate, response.CertReqID, err)
		}
		return Result{}, err
	}
	t.remark(certificate, csr)
	if !implicit {
		if err := t.confirm(ctx, CertConfirmContent{certStatus(certificate, response.CertReqID)}); err != nil {
			return Result{}, fmt.Errorf("confirming certificate: %w", err)
		}
	}
	return result, nil
}

// evaluate decides whether the certificate is the one asked for. With an error the certificate
// is nil when it cannot even be read.
func (t *transaction) evaluate(answer *PKIMessage, response CertResponse, csr *x509.CertificateRequest) (*x509.Certificate, Result, error) {
	certificate, err := readCertificate(response.CertifiedKeyPair)
	if err != nil {
		return nil, Result{}, err
	}
	if err := t.c.checkCertificate(certificate, csr); err != nil {
		return certificate, Result{}, err
	}
	chain, trusted, err := t.chain(certificate, answer)
	if err == nil && len(chain) == 0 {
		err = &CheckError{Check: "chain", Got: fmt.Sprintf("%q, which is a trust anchor itself", nameString(certificate.RawSubject)), Want: "a certificate that an authority signed"}
	}
	if err != nil {
		return certificate, Result{}, err
	}
	return certificate, Result{Chain: chain, Trusted: trusted, Vouched: t.vouchedRoots(answer)}, nil
}

// certStatus accepts a certificate (RFC 9810, 5.3.18).
func certStatus(certificate *x509.Certificate, id int64) CertStatus {
	hash, hashAlg := CertHash(certificate)
	return CertStatus{CertHash: hash, CertReqID: id, HashAlg: hashAlg}
}

// confirm sends certConf and waits for pkiConf.
func (t *transaction) confirm(ctx context.Context, statuses CertConfirmContent) error {
	_, err := t.exchange(ctx, PKIBody{BodyCertConf, statuses})
	return err
}

// reject tells the CA that the certificate is not taken, so that it can revoke it (RFC 9810, 5.3.18). A
// certificate that cannot be read has no hash; certConf without any status rejects them all.
func (t *transaction) reject(ctx context.Context, certificate *x509.Certificate, id int64, reason error) {
	statuses := CertConfirmContent{}
	if certificate != nil {
		status := certStatus(certificate, id)
		info := Rejection(reason.Error(), failureOf(reason))
		status.StatusInfo = &info
		statuses = append(statuses, status)
	}
	if err := t.confirm(ctx, statuses); err != nil {
		// The caller gets the reason for the rejection, which matters more.
		t.c.cfg.Log.Warn("rejection of the certificate not confirmed by the CA", "error", err)
	}
}

// giveBack asks the CA to revoke a certificate that is not taken although the CA did without a confirmation: it counts
// as issued, and there is nothing left of the transaction to reject it in (RFC 9483, 4.1.1). The request is
// authenticated as configured, since the holder of a certificate may not revoke it at every CA. It is only made for a
// certificate that holds our key and came in an answer that is to be trusted: an attacker must not have us revoke what
// is another's.
func (t *transaction) giveBack(ctx context.Context, certificate *x509.Certificate, csr *x509.CertificateRequest) {
	log := t.c.cfg.Log
	if certificate == nil || !pki.SameKey(certificate.PublicKey, csr.PublicKey) || t.peerDoubt != nil {
		log.Warn("a certificate that was not accepted stays issued: the CA did without a confirmation, " +
			"in which it could have been rejected")
		return
	}
	serial := pki.Serial(certificate)
	if err := t.c.Revoke(ctx, certificate, ReasonCessationOfOperation, nil); err != nil {
		log.Warn("a certificate that was not accepted stays issued: the CA did without a confirmation, and did not revoke it",
			"serial", serial, "error", err)
		return
	}
	log.Info("the CA revoked a certificate that was not accepted", "serial", serial)
}

// failureOf chooses the failInfo of a rejection.
func failureOf(reason error) FailureBit {
	var check *CheckError
	if errors.As(reason, &check) && check.Check == "chain" {
		return FailSignerNotTrusted
	}
	return FailBadCertTemplate
}
