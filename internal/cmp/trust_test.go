package cmp

import (
	"crypto/x509"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/ca"
)

func TestClient_leafInCAPubs_isNoAnchor(t *testing.T) {
	p := newPKI(t)
	r := &responder{t: t, testPKI: p}
	leafInCAPubs(p.root.cert.Raw)(p, r)
	c, _ := testClient(t, r, nil)

	result, err := c.Initialize(t.Context(), Request{CSR: p.csr, Key: p.key})

	require.NoError(t, err)
	assert.Len(t, result.Chain, 2)
	assert.Equal(t, []*x509.Certificate{p.root.cert}, result.Trusted)
}

// Version 1 has no extension to say that a certificate is a CA's; old roots are still of it.
func TestClient_rootOfVersion1InCAPubs_isAnAnchor(t *testing.T) {
	p := newPKI(t)
	old, err := ca.Version1(p.root.cert, p.root.key)
	require.NoError(t, err)
	p.root.cert = old
	c, _ := testClient(t, &responder{t: t, testPKI: p}, nil)

	result, err := c.Initialize(t.Context(), Request{CSR: p.csr, Key: p.key})

	require.NoError(t, err)
	assert.Equal(t, []*x509.Certificate{old}, result.Trusted)
}

// Of version 1, only a signature by itself tells a root from the certificate of anybody.
func TestClient_certificateOfVersion1InCAPubs_thatAnotherSigned_isNoAnchor(t *testing.T) {
	p := newPKI(t)
	unknown := newIdentity(t, "CN=Unknown Root", nil, asCA)
	p.ca.cert = issue(t, testRecipient, p.ca.key.Public(), unknown, nil, asCA)
	old, err := ca.Version1(p.ca.cert, unknown.key)
	require.NoError(t, err)
	r := &responder{t: t, testPKI: p, body: func(_ *PKIMessage, honest PKIBody) PKIBody {
		if rep, ok := honest.Content.(*CertRepMessage); ok {
			rep.CAPubs = append(rep.CAPubs, old.Raw)
		}
		return honest
	}}
	c, _ := testClient(t, r, nil)

	_, err = c.Initialize(t.Context(), Request{CSR: p.csr, Key: p.key})

	assert.ErrorContains(t, err, "checking chain of the CMP answer")
}

// Nothing vouches for caPubs of a signed answer: its roots are not handed on, even when the certificate is good.
func TestClient_caPubsUnderSignature_areNotTrusted(t *testing.T) {
	p := newPKI(t)
	stranger := newIdentity(t, "CN=Stranger Root", nil, asCA)
	r := &responder{t: t, testPKI: p, signed: true, body: func(_ *PKIMessage, honest PKIBody) PKIBody {
		if rep, ok := honest.Content.(*CertRepMessage); ok {
			rep.CAPubs = append(rep.CAPubs, stranger.cert.Raw)
		}
		return honest
	}}
	c, _ := testClient(t, r, func(c *Config) { anchored(p, c) })

	result, err := c.Initialize(t.Context(), Request{CSR: p.csr, Key: p.key})

	require.NoError(t, err)
	assert.Equal(t, []*x509.Certificate{p.root.cert}, result.Trusted)
}

// The signer of the answers is often the issuer, and a later answer may come without certificates.
func TestClient_signerOfAnEarlierAnswer_servesAsIntermediate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPKI(t)
		r := &responder{t: t, testPKI: p, signed: true}
		waiting(p, r, nil)
		r.message = func(request, m *PKIMessage) {
			if request.Body.Type != BodyIR {
				m.ExtraCerts = nil
			}
		}
		c, _ := testClient(t, r, func(c *Config) { anchored(p, c) })

		result, err := c.Initialize(t.Context(), Request{CSR: p.csr, Key: p.key})

		require.NoError(t, err)
		assert.Equal(t, p.ca.cert, result.Chain[1])
	})
}

func onap(c *Config) { laxly(nil, c) }

// A warning is there when the transaction fails afterwards, and once for every answer.
func TestClient_onapTrust_warnsAlsoOfWhatFailsLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPKI(t)
		r := &responder{t: t, testPKI: p, signed: true}
		waiting(p, r, PollRepContent{{CheckAfter: 1}}, PollRepContent{{CheckAfter: 1}}, nil)
		honest := r.body
		r.body = func(request *PKIMessage, body PKIBody) PKIBody {
			body = honest(request, body)
			if rep, ok := body.Content.(*CertRepMessage); ok && rep.Response[0].CertifiedKeyPair != nil {
				rep.Response[0].CertifiedKeyPair.Certificate = p.leaf(t, asCA).Raw
			}
			return body
		}
		c, log := testClient(t, r, onap)

		_, err := c.Initialize(t.Context(), Request{CSR: p.csr, Key: p.key})

		require.Equal(t, "basicConstraints: CA:TRUE", outline(err))
		kinds := []string{}
		for _, warning := range warnings(t, log) {
			kinds = append(kinds, warning[:len("pollRep is signed")])
		}
		assert.Equal(t, []string{"ip is signed by \"", "pollRep is signed", "pollRep is signed", "ip is signed by \"", "pkiconf is signed"}, kinds)
	})
}

func TestClient_onapTrust_refusalBySomebody_isNotAuthenticated(t *testing.T) {
	p := newPKI(t)
	stranger := newIdentity(t, testRecipient, nil, asCA)
	for name, row := range map[string]struct {
		signer        *identity
		change        func(*Config)
		authenticated bool
	}{
		"by anybody":  {stranger, onap, false},
		"by the CA":   {p.ca, func(c *Config) { anchored(p, c); laxly(p, c) }, true},
		"no anchors":  {p.ca, onap, false},
		"strict, too": {p.ca, func(c *Config) { anchored(p, c) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := &responder{t: t, testPKI: p, body: func(*PKIMessage, PKIBody) PKIBody {
				return PKIBody{BodyError, &ErrorMsgContent{StatusInfo: Rejection("no")}}
			}}
			signedBy(t, row.signer)(p, r)
			c, log := testClient(t, r, row.change)

			_, err := c.Initialize(t.Context(), Request{CSR: p.csr, Key: p.key})

			var status *StatusError
			require.ErrorAs(t, err, &status)
			assert.Equal(t, row.authenticated, status.Authenticated)
			assert.Empty(t, warnings(t, log), "nothing was believed")
		})
	}
}

// Names of signers, of issuers and in the certificate come from the peer, who can make them a megabyte long.
func TestClient_namesOfPeers_areBoundedInErrorsAndWarnings(t *testing.T) {
	p := newPKI(t)
	name := hugeName(t, 200_000)
	huge := func(c *x509.Certificate) { asCA(c); c.RawSubject = name }
	signer := newIdentity(t, "CN=any", nil, huge)
	unknown := p.leafBy(t, signer, nil)
	renamed := p.leaf(t, func(c *x509.Certificate) { c.RawSubject = name })
	more := p.leaf(t, func(c *x509.Certificate) {
		for i := range 10_000 {
			c.DNSNames = append(c.DNSNames, fmt.Sprintf("name-%d-that-nobody-asked-for.example", i))
		}
	})
	for name, row := range map[string]struct {
		respond func(*testPKI, *responder)
		change  func(*Config)
	}{
		"sender": {func(_ *testPKI, r *responder) {
			r.signed, r.header = true, func(_ *PKIMessage, h *PKIHeader) { h.Sender = DirectoryName(name) }
		}, func(c *Config) { anchored(p, c) }},
		"signer":  {signedBy(t, signer), onap},
		"issuer":  {with(unknown), nil},
		"subject": {with(renamed), nil},
		"names":   {with(more), nil},
	} {
		t.Run(name, func(t *testing.T) {
			r := &responder{t: t, testPKI: p}
			row.respond(p, r)
			c, log := testClient(t, r, row.change)

			_, err := c.Initialize(t.Context(), Request{CSR: p.csr, Key: p.key})

			assert.Less(t, len(fmt.Sprint(err)), 3*maxShownText)
			assert.Less(t, log.Len(), 6*maxShownText)
			assert.Contains(t, fmt.Sprint(err)+log.String(), "…", "something was cut")
			for _, request := range r.requests {
				der, err := request.Marshal()
				require.NoError(t, err)
				assert.Less(t, len(der), 6*maxShownText, "what the CA is told")
			}
		})
	}
}

// The wait is over when it is, also for a CA that thinks long before each pollRep.
func TestClient_waiting_countsTheThinkingOfTheCA(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPKI(t)
		r := &responder{t: t, testPKI: p}
		waiting(p, r, PollRepContent{{CheckAfter: 0}})
		honest := r.body
		r.body = func(request *PKIMessage, body PKIBody) PKIBody {
			if request.Body.Type == BodyPollReq {
				time.Sleep(20 * time.Second)
			}
			return honest(request, body)
		}
		c, _ := testClient(t, r, func(c *Config) { c.MaxPollWait = time.Minute })
		start := time.Now()

		_, err := c.Initialize(t.Context(), Request{CSR: p.csr, Key: p.key})

		var status *StatusError
		require.ErrorAs(t, err, &status)
		assert.Equal(t, StatusWaiting, status.Status)
		assert.Equal(t, 62*time.Second, time.Since(start), "three polls with a second between them")
	})
}
