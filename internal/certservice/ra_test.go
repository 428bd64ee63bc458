package certservice

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"io"
	"net/http"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/cmp"
)

// polled is a CA that answers whatever comes with one certificate.
type polled struct {
	funcAuthority
	certificate *x509.Certificate
	asked       int
}

func (p *polled) Issued(*x509.Certificate, [][]byte) error { return nil }
func (p *polled) CACertificates() [][]byte                 { return nil }
func (p *polled) Relay(_ context.Context, m *cmp.PKIMessage, _ bool) (cmp.Relayed, error) {
	p.asked++
	answer := &cmp.PKIMessage{Header: m.Header, Body: cmp.PKIBody{Type: cmp.BodyIP, Content: &cmp.CertRepMessage{
		Response: []cmp.CertResponse{{CertifiedKeyPair: &cmp.CertifiedKeyPair{Certificate: p.certificate.Raw}}}}}}
	return cmp.Relayed{Answer: answer, MACVerified: true, Certificate: p.certificate}, nil
}

// unprotected is a message with the body.
func unprotected(body cmp.PKIBody) []byte {
	nobody := cmp.DirectoryName([]byte{0x30, 0})
	m := &cmp.PKIMessage{Body: body, Header: cmp.PKIHeader{PVNO: cmp.PVNO2, TransactionID: cmp.NewNonce(),
		SenderNonce: cmp.NewNonce(), Sender: nobody, Recipient: nobody}}
	return must(m.Marshal())
}

// askCMP posts a body of a transaction, and returns the answer's kind, and its failInfo and text where it is an error.
func askCMP(t *testing.T, s *service, body cmp.PKIBody) (cmp.BodyType, string) {
	t.Helper()
	r := must(s.client.Post(s.url+"/.well-known/cmp/p/RA", cmp.MediaType, bytes.NewReader(unprotected(body))))
	defer r.Body.Close()
	require.Equal(t, http.StatusOK, r.StatusCode)
	answer := must(cmp.ParsePKIMessage(must(io.ReadAll(r.Body))))
	if content, ok := answer.Body.Content.(*cmp.ErrorMsgContent); ok {
		return answer.Body.Type, jsonText(t, content.StatusInfo.StatusString)
	}
	return answer.Body.Type, ""
}

func newPolicy(t *testing.T, text string) *PolicyFile {
	path := filepath.Join(t.TempDir(), "policy.yaml")
	writeFile(t, path, []byte(text))
	f := NewPolicyFile(path, NewMetrics(""), jsonLog(io.Discard))
	require.NoError(t, f.Reload("test"))
	return f
}

const peersPolicy = `rules: [{name: own, clients: [{subject: {commonName: peer}}], cas: [RA], operations: [cmp],
  allow: {commonName: [app], dns: [app.example.org, localhost], ip: [127.0.0.1, "::1"]}}]`

// The service keeps nothing of the request that is polled for, so it judges the certificate.
func TestRelay_polledFor_isJudgedByThePolicy(t *testing.T) {
	ca := newCA(t, "CA")
	for name, row := range map[string]struct {
		commonName, host string
		want             cmp.BodyType
		text             string
	}{
		"the client's own": {"app", "app.example.org", cmp.BodyIP, ""},
		"another host's": {"app", "db.example.org", cmp.BodyError,
			`["Not allowed by the policy: DNS name \"db.example.org\" is not allowed (rule \"own\")"]`},
		"another common name": {"db", "app.example.org", cmp.BodyError,
			`["Not allowed by the policy: commonName \"db\" is not allowed (rule \"own\")"]`},
	} {
		t.Run(name, func(t *testing.T) {
			_, chain, err := ca.Identity(row.commonName, row.host)
			require.NoError(t, err)
			authority := &polled{certificate: chain[0]}
			s := newService(t, authority, func(cfg *HandlerConfig) { cfg.Policy = newPolicy(t, peersPolicy) })
			kind, text := askCMP(t, s, cmp.PKIBody{Type: cmp.BodyPollReq, Content: cmp.PollReqContent{0}})
			assert.Equal(t, row.want, kind)
			assert.Equal(t, row.text, text)
			assert.Equal(t, 1, authority.asked)
		})
	}
}

// What a CA may find in regInfo (RFC 4211, 7) is not what the policy has judged.
func TestRelay_regInfo_isRefused(t *testing.T) {
	_, chain, err := newCA(t, "CA").Identity("app", "app.example.org")
	require.NoError(t, err)
	key := newKey(t)
	for name, regInfo := range map[string][]cmp.AttributeTypeAndValue{
		"none":      nil,
		"utf8Pairs": {{Type: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 5, 2, 1}, Value: must(asn1.Marshal("x"))}},
	} {
		t.Run(name, func(t *testing.T) {
			authority := &polled{certificate: chain[0]}
			s := newService(t, authority, func(cfg *HandlerConfig) { cfg.Policy = newPolicy(t, peersPolicy) })
			subject := must(asn1.Marshal(pkix.Name{CommonName: "app"}.ToRDNSequence()))
			request := cmp.CertReqMsg{RegInfo: regInfo, CertReq: cmp.CertRequest{CertTemplate: cmp.CertTemplate{
				Subject: subject, PublicKey: must(x509.MarshalPKIXPublicKey(key.Public()))}}}
			require.NoError(t, request.SignPOPO(key))
			kind, text := askCMP(t, s, cmp.PKIBody{Type: cmp.BodyIR, Content: cmp.CertReqMessages{request}})
			if regInfo == nil {
				assert.Equal(t, cmp.BodyIP, kind, text)
				return
			}
			assert.Equal(t, cmp.BodyError, kind)
			assert.Contains(t, text, "regInfo")
			assert.Zero(t, authority.asked)
		})
	}
}
