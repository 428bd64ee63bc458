package cmp

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// issuing has the responder issue a certificate.
func issuing(t *testing.T, p *testPKI, change func(*x509.Certificate)) *responder {
	r := &responder{t: t, testPKI: p}
	with(p.leaf(t, change))(p, r)
	return r
}

func TestClient_missingExtKeyUsage_isWarnedOf(t *testing.T) {
	p := newPKI(t)
	server, client := x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth
	for name, row := range map[string]struct {
		granted []x509.ExtKeyUsage
		want    string
	}{
		"client only":         {[]x509.ExtKeyUsage{client}, `"missing":"serverAuth"`},
		"server only":         {[]x509.ExtKeyUsage{server}, `"missing":"clientAuth"`},
		"neither":             {[]x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection}, `"missing":"clientAuth, serverAuth"`},
		"both":                {[]x509.ExtKeyUsage{client, server, x509.ExtKeyUsageEmailProtection}, ""},
		"any":                 {[]x509.ExtKeyUsage{x509.ExtKeyUsageAny}, ""},
		"without restriction": {nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, log, err := initialize(t, p, issuing(t, p, func(c *x509.Certificate) { c.ExtKeyUsage = row.granted }), nil)

			require.NoError(t, err)
			if row.want == "" {
				assert.NotContains(t, log.String(), `"level":"WARN"`)
				return
			}
			assert.Contains(t, log.String(), row.want)
			assert.Contains(t, log.String(), `"level":"WARN"`)
		})
	}
	t.Run("asked for by the request", func(t *testing.T) {
		p.csr = newCSR(t, p.key, func(c *x509.CertificateRequest) {
			c.ExtraExtensions = []pkix.Extension{{Id: oidExtKeyUsage, Value: []byte{0x30, 10, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 4}}}
		})
		_, log, err := initialize(t, p, issuing(t, p, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{server} }), nil)
		require.NoError(t, err)
		assert.Contains(t, log.String(), `"missing":"emailProtection"`)
	})
}

func TestClient_issuerThatIsNotConfigured_isWarnedOf(t *testing.T) {
	p := newPKI(t)
	for recipient, want := range map[string]bool{
		testRecipient:                 false,
		"C=SE, O=Example, CN=Test CA": false, // the order is not what counts
		"CN=Test CA":                  true,
	} {
		_, log, err := initialize(t, p, &responder{t: t, testPKI: p}, func(c *Config) { c.Recipient = recipient })

		require.NoError(t, err)
		text := "the certificate's issuer is not the configured one, by which some CAs find the holder at an update"
		assert.Equal(t, want, strings.Contains(log.String(), text), recipient)
		if want {
			assert.Contains(t, log.String(), `"issuer":"CN=Test CA,O=Example,C=SE","configured":"CN=Test CA"`)
		}
	}
}

// Only the order of the RDNs is another: nothing to remark, let alone to refuse.
func TestClient_subjectInReverse_isNoRemark(t *testing.T) {
	p := newPKI(t)
	_, log, err := initialize(t, p, issuing(t, p, func(c *x509.Certificate) { c.RawSubject = dn(t, "O=Example,CN=leaf") }), nil)
	require.NoError(t, err)
	assert.NotContains(t, log.String(), `"level":"WARN"`)
}

// Where the CA does without a confirmation, nothing is left to reject the certificate in.
func TestClient_certificateImplicitlyConfirmedAndRefused_isGivenBack(t *testing.T) {
	const stays = "a certificate that was not accepted stays issued"
	renamed := func(c *x509.Certificate) { c.DNSNames = []string{"another.example"} }
	implicit := func(c *Config) { c.ImplicitConfirm = true }

	t.Run("revoked under the secret", func(t *testing.T) {
		p := newPKI(t)
		refused := p.leaf(t, renamed)
		r := &responder{t: t, testPKI: p, grant: true}
		with(refused)(p, r)

		_, log, err := initialize(t, p, r, implicit)

		var check *CheckError
		require.ErrorAs(t, err, &check)
		assert.True(t, check.Modified())
		require.Equal(t, []BodyType{BodyIR, BodyRR}, r.kinds())
		details := r.requests[1].Body.Content.(RevReqContent)[0].CertDetails
		assert.Equal(t, refused.SerialNumber, details.SerialNumber)
		assert.Equal(t, p.ca.cert.RawSubject, details.Issuer)
		assert.True(t, r.requests[1].MACProtected())
		assert.NotEqual(t, r.requests[0].Header.TransactionID, r.requests[1].Header.TransactionID)
		assert.Contains(t, log.String(), "the CA revoked a certificate that was not accepted")
		assert.NotContains(t, log.String(), stays)
	})
	t.Run("after an update also under the secret", func(t *testing.T) {
		p := newPKI(t)
		r := &responder{t: t, testPKI: p, grant: true}
		with(p.leaf(t, renamed))(p, r)
		c, _ := testClient(t, r, implicit)

		_, err := c.UpdateKey(t.Context(), Request{CSR: p.csr, Key: p.key}, Signer{Key: p.old.key, Certificate: p.old.cert})

		require.Error(t, err)
		require.Equal(t, []BodyType{BodyKUR, BodyRR}, r.kinds())
		assert.True(t, r.requests[1].MACProtected())
	})
	t.Run("the CA does not revoke", func(t *testing.T) {
		p := newPKI(t)
		r := &responder{t: t, testPKI: p, grant: true}
		with(p.leaf(t, renamed))(p, r)
		issue := r.body
		r.body = func(request *PKIMessage, honest PKIBody) PKIBody {
			if request.Body.Type == BodyRR {
				return PKIBody{BodyError, &ErrorMsgContent{StatusInfo: Rejection("not an authorized administrator", FailNotAuthorized)}}
			}
			return issue(request, honest)
		}

		_, log, err := initialize(t, p, r, implicit)

		assert.Equal(t, `subjectAltName: DNS "another.example", IP 10.0.0.1`, outline(err), "the reason for the refusal matters more")
		assert.Contains(t, log.String(), stays)
		assert.Contains(t, log.String(), "not an authorized administrator")
	})
	t.Run("not ours to revoke", func(t *testing.T) {
		p := newPKI(t)
		r := &responder{t: t, testPKI: p, grant: true}
		with(p.old.cert)(p, r) // another key: whoever it belongs to may need it

		_, log, err := initialize(t, p, r, implicit)

		assert.Equal(t, "public key: another key in the certificate", outline(err))
		assert.Equal(t, []BodyType{BodyIR}, r.kinds())
		assert.Contains(t, log.String(), stays)
	})
	t.Run("in an answer that is not to be trusted", func(t *testing.T) {
		p := newPKI(t)
		r := &responder{t: t, testPKI: p, grant: true, signed: true}
		with(p.leaf(t, func(c *x509.Certificate) { c.NotAfter = testNow.Add(-1) }))(p, r)

		_, log, err := initialize(t, p, r, func(c *Config) { implicit(c); laxly(p, c) })

		require.Error(t, err)
		assert.Equal(t, []BodyType{BodyIR}, r.kinds())
		assert.Contains(t, log.String(), stays)
	})
	t.Run("confirmed explicitly it is rejected", func(t *testing.T) {
		p := newPKI(t)
		r := &responder{t: t, testPKI: p, grant: true}
		with(p.leaf(t, renamed))(p, r)

		_, _, err := initialize(t, p, r, func(c *Config) { c.ImplicitConfirm = false })

		require.Error(t, err)
		require.Equal(t, []BodyType{BodyIR, BodyCertConf}, r.kinds())
		assert.Equal(t, StatusRejection, r.requests[1].Body.Content.(CertConfirmContent)[0].StatusInfo.Status)
	})
}

func TestCheckError_Modified_isAboutNamesOnly(t *testing.T) {
	for check, want := range map[string]bool{"subject": true, "subjectAltName": true, "public key": false, "chain": false, "validity": false} {
		assert.Equal(t, want, (&CheckError{Check: check}).Modified(), check)
	}
}
