package cmp

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/test/ca"
)

// The keys in these answers are good but for their size: each row would be accepted if nobody looked at that.
func TestHostile_oversizedKey(t *testing.T) {
	p := newPKI(t)
	key := ca.OversizedRSA()
	signer := &identity{key, issue(t, testRecipient, key.Public(), p.root, nil, asCA)}
	root := &identity{key, issue(t, "CN=Large Root", key.Public(), nil, key, asCA)}
	byRoot := p.leafBy(t, root, nil)
	inCAPubs := func(cert *x509.Certificate) func(*testPKI, *responder) {
		return func(p *testPKI, r *responder) {
			with(byRoot, cert.Raw)(p, r)
			grant := r.body
			r.body = func(request *PKIMessage, honest PKIBody) PKIBody {
				body := grant(request, honest)
				if rep, ok := body.Content.(*CertRepMessage); ok {
					rep.CAPubs = [][]byte{cert.Raw}
				}
				return body
			}
		}
	}
	for name, row := range map[string]hostile{
		"signs the answer": {anchored, signedBy(t, signer, signer.cert), `signature: one by "CN=Test CA,O=Example,C=SE" that no certificate verifies`},
		"signs the answer, with lax trust": {laxly, signedBy(t, signer),
			`signature: one by "CN=Test CA,O=Example,C=SE" that no certificate verifies`},
		"signs a refusal": {anchored, func(p *testPKI, r *responder) {
			signedBy(t, signer)(p, r)
			r.body = func(*PKIMessage, PKIBody) PKIBody {
				return PKIBody{BodyError, &ErrorMsgContent{StatusInfo: Rejection("no")}}
			}
		}, `CA refused (in an answer that is not authenticated): rejection: "no"`},
		"is the root's, in caPubs under a MAC": {nil, inCAPubs(root.cert), `chain: "CN=leaf,O=Example" issued by "CN=Large Root", and no trust anchor`},
		"is the root's, with lax trust": {laxly, func(p *testPKI, r *responder) {
			inCAPubs(root.cert)(p, r)
			r.signed = true
		}, `chain: "CN=leaf,O=Example" issued by "CN=Large Root", and no trust anchor`},
		"is the issuer's, in extraCerts": {anchored, with(p.leafBy(t, signer, nil), signer.cert.Raw),
			`chain: "CN=leaf,O=Example" issued by "CN=Test CA,O=Example,C=SE", which does not verify (a CA certificate "C=SE,O=Example,CN=Test CA" is in the chain, but with another key than the one that signed "O=Example,CN=leaf": get the CA's current certificate)`},
		"is in the certificate": {nil, with(issue(t, "CN=leaf,O=Example", key.Public(), p.ca, nil, nil)),
			"certificate: one that cannot be read (RSA key has 8676 bits, want at most 8192)"},
	} {
		t.Run(name, func(t *testing.T) { row.run(t, p) })
	}
}

// hugeRSA is a public key that one verification takes half a minute with.
func hugeRSA() *rsa.PublicKey {
	const bits = 131_072
	n := new(big.Int).Lsh(big.NewInt(3), bits-2)
	return &rsa.PublicKey{N: n.Add(n, big.NewInt(12345)), E: 1<<31 - 1}
}

func TestHostile_hugeKeys_costNothing(t *testing.T) {
	p := newPKI(t)
	huge := issue(t, testRecipient, hugeRSA(), p.ca, nil, asCA)
	for name, config := range map[string]func(*testPKI, *Config){
		"anchored": anchored, "without anchors": nil,
		"as ONAP did": laxly,
	} {
		t.Run(name, func(t *testing.T) {
			r := &responder{t: t, testPKI: p, protect: func(_, m *PKIMessage) {
				m.Header.ProtectionAlg = &AlgorithmIdentifier{Algorithm: signatureAlgorithms[0].oid, Parameters: derNull}
				m.Protection = make([]byte, hugeRSA().Size())
				m.Protection[1] = 1 // less than the modulus, or it would be refused for that
				m.ExtraCerts = nil
				for range maxSignerCandidates {
					m.ExtraCerts = append(m.ExtraCerts, huge.Raw)
				}
			}}
			c, _ := testClient(t, r, func(c *Config) {
				if config != nil {
					config(p, c)
				}
			})
			start := time.Now()

			_, err := c.Initialize(t.Context(), Request{CSR: p.csr, Key: p.key})

			assert.Error(t, err)
			assert.Less(t, time.Since(start), 20*time.Second, "minutes, if they were tried")
		})
	}
}

// A name is compared with each certificate that comes along, so it must not be taken apart each time.
func TestHostile_hugeSender_costsLittle(t *testing.T) {
	p := newPKI(t)
	small := issue(t, "CN=s", p.key.Public(), p.ca, nil, nil).Raw
	r := &responder{t: t, testPKI: p, signed: true, header: func(_ *PKIMessage, h *PKIHeader) { h.Sender = DirectoryName(hugeName(t, 800_000)) }}
	r.message = func(_, m *PKIMessage) {
		m.ExtraCerts = nil
		for range maxElements {
			m.ExtraCerts = append(m.ExtraCerts, small)
		}
	}
	c, _ := testClient(t, r, func(c *Config) { anchored(p, c) })
	start := time.Now()

	_, err := c.Initialize(t.Context(), Request{CSR: p.csr, Key: p.key})

	assert.Contains(t, outline(err), "signature: one by ")
	assert.Less(t, time.Since(start), 20*time.Second)
}

// hugeName is a DER Name with a value of that many bytes, each of which takes four when it is quoted.
func hugeName(t *testing.T, size int) []byte {
	value := make([]byte, size)
	for i := range value {
		value[i] = 1
	}
	der, err := asn1.Marshal(pkix.RDNSequence{{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: value}}}})
	require.NoError(t, err)
	return der
}

func TestVerify_oversizedKey_isRefusedThoughTheSignatureIsGood(t *testing.T) {
	key := ca.OversizedRSA()
	m := confirmation(t)
	require.NoError(t, ProtectSignature(m, key))
	var request CertReqMsg
	require.NoError(t, request.CertReq.CertTemplate.SetKey(key.Public()))
	require.NoError(t, request.SignPOPO(key))

	assert.EqualError(t, VerifySignature(m, key.Public()), "RSA key has 8676 bits, want at most 8192")
	assert.EqualError(t, request.VerifyPOPO(), "verifying proof of possession: RSA key has 8676 bits, want at most 8192")
}

func TestCheckKey_boundsKindAndSize(t *testing.T) {
	modulus := func(bits uint) *rsa.PublicKey {
		return &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), bits-1), E: 65537}
	}
	for name, key := range testKeys(t) {
		assert.NoError(t, CheckKey(key.Public()), name)
	}
	assert.NoError(t, CheckKey(modulus(pki.MaxRSABits)))
	for want, key := range map[string]crypto.PublicKey{
		"RSA key has 8193 bits, want at most 8192":                                                    modulus(pki.MaxRSABits + 1),
		"key of type ECDSA P-224 is not supported: want RSA, ECDSA P-256, P-384 or P-521, or Ed25519": newP224(t).Public(),
		"key of type <nil> is not supported: want RSA, ECDSA P-256, P-384 or P-521, or Ed25519":       nil,
	} {
		assert.EqualError(t, CheckKey(key), want)
	}
}

func newP224(t *testing.T) crypto.Signer {
	key, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	require.NoError(t, err)
	return key
}
