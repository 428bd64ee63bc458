package cmp

import (
	"crypto/x509"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// authority is a registration authority between a client and what plays the CA.
type authority struct {
	t      testing.TB
	toCA   *Client
	signer Signer
}

func (a authority) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	request := fixture.Must(ParsePKIMessage(fixture.Must(io.ReadAll(r.Body))))
	byClient := strings.Contains(request.Header.Sender.String(), "client")
	relayed, err := a.toCA.Relay(r.Context(), request, byClient)
	answer := relayed.Answer
	if err != nil {
		answer = &PKIMessage{Header: request.Header.Answer(GeneralName{}, testNow),
			Body: PKIBody{BodyError, &ErrorMsgContent{StatusInfo: Rejection("refused", FailSystemFailure)}}}
	}
	if err != nil || relayed.MACVerified {
		extra := answer.ExtraCerts
		answer.SetSigner(a.signer.Certificate, nil)
		answer.ExtraCerts = append(answer.ExtraCerts, extra...)
		assert.NoError(a.t, ProtectSignature(answer, a.signer.Key))
	}
	w.Header().Set("Content-Type", MediaType)
	_, _ = w.Write(fixture.Must(answer.Marshal()))
}

// checkRelayed asks through a registration authority as well. The client accepts nothing of a CA
// then that it would refuse directly. What it would accept arrives, but for an answer whose signer
// only an earlier one had: the authority keeps nothing between messages.
func checkRelayed(t *testing.T, title, commands string, kind BodyType, accepted bool) {
	p := newPlay(t, commands)
	if p.config.Protection == ProtectionNone {
		return // an authority protects what it sends
	}
	tls := newIdentity("CN=TLS Root", nil, asCA)
	server := newIdentity("CN=certservice", tls, func(c *x509.Certificate) {
		c.DNSNames, c.ExtKeyUsage = []string{"ra.example"}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	})
	signer := newIdentity("CN=client", tls).signer()
	toCA := fixture.Must(New(p.config))
	cfg := testConfig(authority{t, toCA, server.signer()}, &p.log)
	cfg.Protection, cfg.Secret, cfg.Signer = ProtectionSignature, nil, &signer
	cfg.TrustAnchors = append(p.config.TrustAnchors, p.named["root"].cert)
	cfg.ServerAnchors, cfg.ServerName = []*x509.Certificate{tls.cert}, "ra.example"
	cfg.AllowModified, cfg.ImplicitConfirm = p.config.AllowModified, p.config.ImplicitConfirm
	cfg.SignerDN, cfg.ResponseTrust = p.config.SignerDN, p.config.ResponseTrust
	p.config = cfg
	result, err := p.send(kind)
	const stricter = "the signer of an earlier answer is the issuer, and the last answer has no certificates"
	assert.Equal(t, accepted && title != stricter, err == nil, "through an authority: %v", err)
	assert.Equal(t, err == nil, len(result.Chain) > 0)
}
