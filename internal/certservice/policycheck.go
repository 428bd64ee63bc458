package certservice

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/internal/policy"
)

// Trial is a request that is tried out on a policy, without a service.
type Trial struct {
	Client    policy.Client
	CA        string
	Operation policy.Operation
	CSR       []byte // PEM or DER; empty for operations that need none
}

// Try judges a request as the service would. The error says what of the trial cannot be read.
func (t Trial) Try(rules *policy.Policy) (policy.Decision, error) {
	q := policy.Question{Client: t.Client, CA: t.CA, Operation: t.Operation, At: time.Now()}
	if len(t.CSR) > 0 {
		csr, err := readCSRFile(t.CSR)
		if err == nil {
			q.Asked, err = policy.ReadCSR(csr)
		}
		_, isFault := errors.AsType[csrFault](err)
		_, isRefused := errors.AsType[policy.AlwaysRefusedError](err)
		if err == nil && t.Operation == policy.CMP {
			q.Asked = q.Asked.Whole()
		}
		switch {
		case isFault || isRefused:
			return policy.Decision{Reason: fmt.Sprintf("the CSR %v, whatever a policy says", err)}, nil
		case err != nil:
			return policy.Decision{}, fmt.Errorf("the CSR %w", err)
		}
	}
	return rules.Decide(q, nil), nil
}

func readCSRFile(data []byte) (*x509.CertificateRequest, error) {
	der := data
	if pki.HasPEM(data) {
		blocks, err := pki.PEMBlocks(data)
		if err != nil {
			return nil, err
		}
		der = blocks[0].Bytes
	}
	csr, err := readCSR(der)
	if err == nil && csr.CheckSignature() != nil {
		err = errors.New("has a signature that does not verify")
	}
	return csr, err
}
