package devca_test

import (
	"encoding/asn1"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/devca"
)

// RFC 9483, 3.5: an algorithm that cannot be verified is another fault than a protection that is wrong.
func TestCA_protectionAlgThatIsNotKnown_isBadAlg(t *testing.T) {
	ca, err := devca.New(devca.Config{})
	require.NoError(t, err)
	signer := enrolled(t, ca)
	for name, algorithm := range map[string]cmp.AlgorithmIdentifier{
		"an OID of nobody":       {Algorithm: asn1.ObjectIdentifier{1, 2, 3, 4}},
		"DHBasedMac":             {Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113533, 7, 66, 30}},
		"PBM without parameters": {Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113533, 7, 66, 13}},
		"ECDSA with SHA-1":       {Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			m := withSignature(t, ir(t), signer)
			m.Header.ProtectionAlg = &algorithm
			answer := send(t, ca, m)
			assert.Contains(t, outcome(answer), "error rejection badAlg: protectionAlg: ")
		})
	}
	m := withSignature(t, ir(t), signer)
	m.Protection[len(m.Protection)-1] ^= 1
	assert.Contains(t, outcome(send(t, ca, m)), "error rejection badMessageCheck: ")
}

// RFC 9483, 4.3.3 and 4.3.4: the info type without a value says that there is nothing to give.
func TestCA_genm_isAnsweredWithTheInfoTypeEvenWithoutAValue(t *testing.T) {
	ca, err := devca.New(devca.Config{})
	require.NoError(t, err)
	for name, row := range map[string]struct{ question, answer asn1.ObjectIdentifier }{
		"certReqTemplate": {cmp.OIDCertReqTemplate, cmp.OIDCertReqTemplate},
		"crlStatusList":   {cmp.OIDCRLStatusList, cmp.OIDCRLs},
	} {
		answer := send(t, ca, withMAC(t, message(cmp.BodyGenM, cmp.GeneralContent{{Type: row.question}})))
		assert.Equal(t, cmp.GeneralContent{{Type: row.answer}}, answer.Body.Content, name)
	}
}

// RFC 9483, 4.1.1: a confirmation that accepts has no failInfo. The certificate of one that has is revoked.
func TestCA_confirmationThatAcceptsWithFailInfo_isRefused(t *testing.T) {
	ca, err := devca.New(devca.Config{})
	require.NoError(t, err)
	answer := send(t, ca, withMAC(t, ir(t)))
	certificate := granted(t, answer)
	hash, _ := cmp.CertHash(certificate)
	confirmation := cmp.CertConfirmContent{{CertHash: hash, StatusInfo: &cmp.PKIStatusInfo{
		Status: cmp.StatusAccepted, FailInfo: cmp.NewFailureInfo(cmp.FailIncorrectData),
	}}}
	outcomeOf := outcome(send(t, ca, withMAC(t, follow(answer, cmp.BodyCertConf, confirmation))))
	assert.Equal(t, `error rejection badRequest: certConf accepts the certificate and has failInfo ["incorrectData"]`, outcomeOf)
	assert.True(t, ca.Revoked(certificate.SerialNumber))
}

// RFC 9483, 3.1: senderNonce is fresh in every message.
func TestCA_senderNonceThatWasUsed_isRefused(t *testing.T) {
	const want = "error rejection badSenderNonce: senderNonce was used in a message before, want a fresh one"
	ca, err := devca.New(devca.Config{})
	require.NoError(t, err)

	first := ir(t)
	answer := send(t, ca, withMAC(t, first))
	certificate := granted(t, answer)
	hash, _ := cmp.CertHash(certificate)
	confirmation := follow(answer, cmp.BodyCertConf, cmp.CertConfirmContent{{CertHash: hash}})
	confirmation.Header.SenderNonce = first.Header.SenderNonce
	assert.Equal(t, want, outcome(send(t, ca, withMAC(t, confirmation))), "within a transaction")
	assert.True(t, ca.Revoked(certificate.SerialNumber))

	other := ir(t)
	other.Header.SenderNonce = first.Header.SenderNonce
	assert.Equal(t, want, outcome(send(t, ca, withMAC(t, other))), "in another transaction")
}

// RFC 5280, 4.2.1.9: only a CA's certificate has a path length, 0 too.
func TestCA_pathLengthOfAnEndEntity_isRefused(t *testing.T) {
	ca, err := devca.New(devca.Config{})
	require.NoError(t, err)
	id := asn1.ObjectIdentifier{2, 5, 29, 19}
	for _, length := range []int{0, 3} {
		answer := send(t, ca, extend(t, id, true, struct {
			IsCA   bool `asn1:"optional"`
			Length int
		}{false, length}))
		assert.Contains(t, outcome(answer), "ip rejection badCertTemplate: basicConstraints has a pathLenConstraint of ")
	}
	assert.Equal(t, "ip accepted", outcome(send(t, ca, extend(t, id, true, struct{}{}))))
}
