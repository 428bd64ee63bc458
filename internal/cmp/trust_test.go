package cmp

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// What of an unusual answer is accepted all the same.
func TestClient_unusualAnswer_isAccepted(t *testing.T) {
	p := newPKI(t)
	impostor := newIdentity(t, testRecipient, nil, asCA)
	leaf := func(change change) bend { return with(p.leaf(t, change)) }
	sender := func(name GeneralName) bend { return withHeader(func(_ *PKIMessage, h *PKIHeader) { h.Sender = name }) }
	for name, row := range map[string]struct {
		config configure
		bend   bend
	}{
		"subject in reverse": {nil,
			leaf(func(c *x509.Certificate) { c.RawSubject = dn("O=Example,CN=leaf") })},
		"names in other case": {nil, leaf(func(c *x509.Certificate) { c.DNSNames = []string{"LEAF.example"} })},
		"valid from in two minutes": {nil,
			leaf(func(c *x509.Certificate) { c.NotBefore = testNow.Add(2 * time.Minute) })},
		"name twice": {nil, leaf(func(c *x509.Certificate) { c.DNSNames = []string{"leaf.example", "leaf.example"} })},
		"an impostor beside the CA, as the chain is built by signatures": {nil, afterwards(func(m *PKIMessage) {
			m.ExtraCerts = [][]byte{impostor.cert.Raw, p.ca.cert.Raw}
		})},
		"a signer behind many others":       {anchored, bent(signed, afterwards(behind(10, p.root.cert)))},
		"any sender under a MAC":            {nil, sender(DirectoryName(nil))},
		"the client as sender, under a MAC": {nil, sender(DirectoryName(p.csr.RawSubject))},
		"the issued certificate in caPubs": {nil, withRep(func(rep *CertRepMessage) {
			rep.CAPubs = append(rep.CAPubs, rep.Response[0].CertifiedKeyPair.Certificate)
		})},
		"an extra certificate that cannot be read": {anchored, bent(signed, afterwards(func(m *PKIMessage) {
			m.ExtraCerts = append([][]byte{readCertificateFile("negative-serial")}, m.ExtraCerts...)
		}))},
		"a stranger in caPubs of a signed answer, for which nothing vouches": {anchored,
			bent(signed, withCAPubs(impostor.cert))},
		"a messageTime with an offset": {nil, withHeader(func(_ *PKIMessage, h *PKIHeader) {
			h.MessageTime, _ = time.Parse(offsetTimeLayout, "20260504050201+0200")
			h.messageTimeText = "20260504050201+0200"
		})},
		// Its default; no weaker than PBM with SHA-256 for all that is known.
		"HMAC-SHA1 with a key by SHA-256, as OpenSSL does": {nil, func(_ *testPKI, r *responder) {
			r.protect = func(_, m *PKIMessage) {
				mac := newPBM(ProtectionPBMSHA256, crypto.SHA256)
				mac.Hash = crypto.SHA1
				require.NoError(t, NewMACKeys([]byte(testSecret)).Protect(m, mac))
			}
		}},
		// EJBCA sends pkiConf without extraCerts, echoes the client's senderKID, and gives names back in reverse.
		"the manners of EJBCA": {anchored, bent(signed, withHeader(func(request *PKIMessage, h *PKIHeader) {
			h.SenderKID = request.Header.SenderKID
			h.Sender = DirectoryName(dn("C=SE,O=Example,CN=Test CA"))
		}), afterwards(noExtraCerts, BodyCertConf))},
	} {
		t.Run(name, func(t *testing.T) {
			got := p.initialize(t, row.config, row.bend)
			require.NoError(t, got.err)
			assert.Len(t, got.Chain, 2)
			assert.Equal(t, p.ca.cert, got.Chain[1])
			assert.Equal(t, []*x509.Certificate{p.root.cert}, got.Trusted)
			assert.Empty(t, warnings(got.logged))
		})
	}
}

func readCertificateFile(name string) []byte {
	text := fixture.Must(os.ReadFile("../../test/testdata/certificates/" + name + ".pem"))
	block, _ := pem.Decode(text)
	return block.Bytes
}

func TestClient_AllowModified_takesOtherNames(t *testing.T) {
	p := newPKI(t)
	got := p.initialize(t, func(_ *testPKI, c *Config) { c.AllowModified = true },
		with(issue(t, "CN=other", p.key.Public(), p.ca, nil, nil)),
		withResponse(func(r *CertResponse) { r.Status.Status = StatusGrantedWithMods }))

	require.NoError(t, got.err)
	assert.Equal(t, "CN=other", got.Chain[0].Subject.String())
}

func TestClient_caPubsUnderMAC_areTrusted(t *testing.T) {
	p := newPKI(t)
	second := newIdentity(t, "CN=Second Root", nil, asCA)
	got := p.initialize(t, nil, withCAPubs(p.ca.cert, second.cert))

	require.NoError(t, got.err)
	assert.Equal(t, []*x509.Certificate{p.root.cert, second.cert}, got.Trusted, "the signing root first")
	assert.Equal(t, []*x509.Certificate{second.cert, p.root.cert}, got.Vouched)
	assert.Len(t, got.Chain, 2)
}

// Version 1 has no extension to say that a certificate is a CA's; old roots are still of it.
func TestClient_rootOfVersion1InCAPubs_isAnAnchor(t *testing.T) {
	p := newPKI(t)
	old := fixture.Must(fixture.Version1(p.root.cert, p.root.key))
	p.root.cert = old
	got := p.initialize(t, nil)

	require.NoError(t, got.err)
	assert.Equal(t, []*x509.Certificate{old}, got.Trusted)
}

// Roots that crypto/x509 refuses or has no key for verify nothing, but clients may know better.
func TestClient_rootInCAPubsThatCanVerifyNothing_isHandedOn(t *testing.T) {
	p := newPKI(t)
	for _, name := range []string{"negative-serial", "brainpool", "ed448", "ecacc"} {
		der := readCertificateFile(name)
		caPubs := withRep(func(rep *CertRepMessage) { rep.CAPubs = append(rep.CAPubs, der, p.root.cert.Raw) })
		got := p.initialize(t, anchored, signed, caPubs)
		require.NoError(t, got.err, name)
		assert.Equal(t, []*x509.Certificate{p.root.cert}, got.Trusted, "%s: nothing vouches for it", name)

		got = p.initialize(t, anchored, caPubs)
		require.NoError(t, got.err, name)
		require.Len(t, got.Trusted, 2, name)
		assert.Equal(t, der, got.Trusted[1].Raw)
		assert.Contains(t, got.logged.String(), "a root in caPubs cannot verify anything here")
	}
}

// RFC 5280, 4.2.1.10: a constraint refuses the names of its kind only, and directory names are understood.
func TestClient_issuerWithNameConstraints(t *testing.T) {
	p := newPKI(t)
	upn := []byte{0xa0, 0x13, 0x06, 0x0a, 0x2b, 6, 1, 4, 1, 0x82, 0x37, 20, 2, 3, 0xa0, 0x05, 0x0c, 3, '@', 'a', 'b'}
	by := func(base []byte) (bend, *identity) { // an authority that is limited to the subtree of a GeneralName
		value := wrap(0x30, wrap(0xa0, wrap(0x30, base)))
		limited := newIdentity(t, "CN=Limited CA", p.root, func(c *x509.Certificate) {
			asCA(c)
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 30},
				Critical: true, Value: value}}
		})
		return with(p.leafBy(t, limited, nil), limited.cert), limited
	}
	for name, base := range map[string][]byte{
		"on the leaf's directory name":    DirectoryName(dn("CN=leaf")),
		"on a kind that the leaf has not": upn,
		"on the leaf's host name":         {0x82, 7, 'e', 'x', 'a', 'm', 'p', 'l', 'e'},
	} {
		bend, limited := by(base)
		got := p.initialize(t, anchored, bend)
		require.NoError(t, got.err, name)
		assert.Equal(t, limited.cert.Raw, got.Chain[1].Raw)
	}
	bend, _ := by(DirectoryName(dn("C=SE")))
	hostiles(t, p, []hostile{{"on another directory name", anchored, bend}}, "ir certConf")
}

// The signer of the answers is often the issuer, and a later answer may come without certificates.
func TestClient_signerOfAnEarlierAnswer_servesAsIntermediate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPKI(t)
		got := p.initialize(t, anchored, signed, waiting(nil),
			afterwards(noExtraCerts, BodyPollReq), afterwards(noExtraCerts, BodyCertConf))

		require.NoError(t, got.err)
		assert.Equal(t, p.ca.cert, got.Chain[1])
	})
}

// Many CAs that sign their answers are certified for certificates and CRLs only.
func TestClient_signerForCertificatesOnly_isAcceptedWhenItIsAnAnchor(t *testing.T) {
	p := newPKI(t)
	certifier := func(c *x509.Certificate) { asCA(c); c.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign }
	p.ca = newIdentity(t, testRecipient, p.root, certifier)
	again := issue(t, testRecipient, p.ca.key.Public(), p.root, nil, certifier)
	for name, anchor := range map[string]*x509.Certificate{"itself": p.ca.cert,
		"its name and key in another certificate": again} {
		got := p.initialize(t, anchoredIn(anchor, p.root.cert), signed)

		require.NoError(t, got.err, name)
		assert.Equal(t, "ir certConf", got.kinds())
		found := bytes.Count(got.logged.Bytes(), []byte("key usage of its signer lacks digitalSignature"))
		assert.Equal(t, 1, found, "once in a transaction")
		assert.Contains(t, got.logged.String(), "Test CA")
	}
	hostiles(t, p, []hostile{{"that is not an anchor", anchored, signed}}, "ir")
}

// An RA that signs answers gets a new certificate now and then; its name stays.
func TestClient_SignerDN_isBelievedAlsoWithARenewedCertificate(t *testing.T) {
	p := newPKI(t)
	configured := func(p *testPKI, c *Config) { anchored(p, c); c.SignerDN = "O=Example, CN=RA" } // in either order
	for name, change := range map[string]change{
		"cmcRA": withUsages(oidCMCRA),
		"cmcCA": withUsages(oidCMCCA),
		"cmcRA among others": func(c *x509.Certificate) {
			withUsages(oidCMCRA)(c)
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		},
		"anyExtendedKeyUsage":   func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} },
		"no extended key usage": nil,
	} {
		for range 2 { // another key and certificate each time
			got := p.initialize(t, configured, signedBy(newIdentity(t, raName, p.ca, change), p.ca.cert))
			require.NoError(t, got.err, name)
			assert.Equal(t, []*x509.Certificate{p.root.cert}, got.Trusted)
			assert.Empty(t, warnings(got.logged))
		}
	}
	assert.NoError(t, p.initialize(t, configured, signed).err, "the CA itself")
}

func TestClient_missingExtKeyUsage_isWarnedOf(t *testing.T) {
	p := newPKI(t)
	const server, client = x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth
	const email = x509.ExtKeyUsageEmailProtection
	asked := newPKI(t)
	asked.csr = newCSR(t, asked.key, emailOnly)
	for name, row := range map[string]struct {
		p       *testPKI
		granted []x509.ExtKeyUsage
		want    string
	}{
		"client only":              {p, []x509.ExtKeyUsage{client}, `"missing":"serverAuth"`},
		"server only":              {p, []x509.ExtKeyUsage{server}, `"missing":"clientAuth"`},
		"neither":                  {p, []x509.ExtKeyUsage{email}, `"missing":"clientAuth, serverAuth"`},
		"both":                     {p, []x509.ExtKeyUsage{client, server, email}, ""},
		"any":                      {p, []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, ""},
		"without restriction":      {p, nil, ""},
		"asked for by the request": {asked, []x509.ExtKeyUsage{server}, `"missing":"emailProtection"`},
	} {
		got := row.p.initialize(t, nil, with(row.p.leaf(t, func(c *x509.Certificate) { c.ExtKeyUsage = row.granted })))
		require.NoError(t, got.err)
		if row.want == "" {
			assert.Empty(t, warnings(got.logged), name)
		} else if assert.Len(t, warnings(got.logged), 1, name) {
			assert.Contains(t, warnings(got.logged)[0], row.want, name)
		}
	}
}

func TestClient_issuerThatIsNotConfigured_isWarnedOf(t *testing.T) {
	p := newPKI(t)
	for recipient, want := range map[string]int{
		testRecipient:                 0,
		"C=SE, O=Example, CN=Test CA": 0, // the order does not count
		"CN=Test CA":                  1,
	} {
		got := p.initialize(t, func(_ *testPKI, c *Config) { c.Recipient = recipient })
		require.NoError(t, got.err)
		assert.Len(t, warnings(got.logged), want, recipient)
		if want > 0 {
			assert.Contains(t, got.logged.String(), `the certificate's issuer is not the configured one`)
			assert.Contains(t, got.logged.String(), `"configured":"CN=Test CA"`)
		}
	}
}

// Where the CA does without a confirmation, nothing is left to reject the certificate in.
func TestClient_certificateImplicitlyConfirmedAndRefused_isGivenBack(t *testing.T) {
	const stays = "a certificate that was not accepted remains issued"
	p := newPKI(t)
	refused := p.leaf(t, func(c *x509.Certificate) { c.DNSNames = []string{"another.example"} })
	expired := p.leaf(t, func(c *x509.Certificate) { c.NotAfter = testNow.Add(-1) })
	for name, row := range map[string]struct {
		kind   BodyType
		config configure
		bend   bend
		want   string // requests
		logged string
	}{
		"revoked under the secret": {BodyIR, implicitly, with(refused), "ir rr",
			"the CA revoked a certificate that was not accepted"},
		"after an update also under the secret": {BodyKUR, implicitly, with(refused), "kur rr",
			"the CA revoked a certificate"},
		"not ours to revoke, as the key is not": {BodyIR, implicitly, with(p.old.cert), "ir", stays},
		"in an answer that is not to be trusted": {BodyIR,
			func(p *testPKI, c *Config) { implicitly(p, c); laxly(p, c) }, bent(signed, with(expired)), "ir", stays},
		"confirmed explicitly, so it is rejected": {BodyIR, nil, with(refused), "ir certConf", ""},
		"the reason is kept when it stays": {BodyIR, implicitly, bent(with(refused),
			answering(refusal("not an authorized administrator", FailNotAuthorized), BodyRR)), "ir rr", stays},
	} {
		t.Run(name, func(t *testing.T) {
			got := p.send(t, row.kind, row.config, granting, row.bend)
			checkText(t, outline(got.err))
			require.Equal(t, row.want, got.kinds())
			assert.Contains(t, got.logged.String(), row.logged)
			if row.logged != stays {
				assert.NotContains(t, got.logged.String(), stays)
			}
			if !strings.HasSuffix(row.want, "rr") {
				return
			}
			details := got.requests[1].Body.Content.(RevReqContent)[0].CertDetails
			assert.Equal(t, refused.SerialNumber, details.SerialNumber)
			assert.Equal(t, p.ca.cert.RawSubject, details.Issuer)
			assert.True(t, got.requests[1].MACProtected())
			assert.NotEqual(t, got.requests[0].Header.TransactionID, got.requests[1].Header.TransactionID)
		})
	}
}

// believed finds what was believed in warnings.
var believed = regexp.MustCompile(`accepted as the ONAP server did","[a-z]+":"(\w+ is signed|root)`)

// A warning is there for each answer, also when the transaction fails afterwards.
func TestClient_onapTrust_warnsOfEveryAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPKI(t)
		withRoot := afterwards(func(m *PKIMessage) { m.ExtraCerts = append(m.ExtraCerts, p.root.cert.Raw) })
		once := PollRepContent{{CheckAfter: 1}}
		for name, row := range map[string]struct {
			bend bend
			want []string
		}{
			"accepted": {withRoot, []string{"ip is signed", "root", "pkiconf is signed"}},
			"refused later": {bent(waiting(once, once, nil), withRep(func(rep *CertRepMessage) {
				if rep.Response[0].CertifiedKeyPair != nil {
					rep.Response[0].CertifiedKeyPair.Certificate = p.leaf(t, asCA).Raw
				}
			})), []string{"ip is signed", "pollRep is signed", "pollRep is signed", "ip is signed",
				"pkiconf is signed"}},
		} {
			got := p.initialize(t, laxly, signed, row.bend)
			assert.Equal(t, name == "accepted", got.err == nil, got.err)
			var kinds []string
			for _, match := range believed.FindAllStringSubmatch(got.logged.String(), -1) {
				kinds = append(kinds, match[1])
			}
			assert.Equal(t, row.want, kinds, name)
		}
	})
}

func TestClient_refusals_areTyped(t *testing.T) {
	p := newPKI(t)
	stranger := newIdentity(t, testRecipient, nil, asCA)
	info := Rejection("no\nsuch \x1b[31muser\u202e", FailNotAuthorized, FailBadPOP)
	wrongMAC := afterwards(func(m *PKIMessage) { m.Protection[0] ^= 1 })
	both := func(p *testPKI, c *Config) { anchored(p, c); laxly(p, c) }
	for _, body := range []PKIBody{
		{BodyError, &ErrorMsgContent{StatusInfo: info}},
		{BodyIP, &CertRepMessage{Response: []CertResponse{{Status: info}}}},
	} {
		for name, row := range map[string]struct {
			config        configure
			bend          bend
			authenticated bool
		}{
			"by MAC":      {nil, nil, true},
			"under a 4xx": {nil, func(_ *testPKI, r *responder) { r.status = 403 }, true},
			"unprotected": {nil, afterwards(unprotected), false},
			"wrong MAC":   {nil, wrongMAC, false},
			"signed":      {nil, signed, false},
			"without IDs": {nil, withHeader(func(_ *PKIMessage, h *PKIHeader) {
				h.TransactionID, h.RecipNonce, h.PVNO = nil, nil, 1
			}), false},
			"with lax trust, by anyone":        {laxly, signedBy(stranger), false},
			"with lax trust, by the CA":        {both, signed, true},
			"with lax trust, without anchors":  {laxly, signed, false},
			"with strict trust, by the anchor": {anchored, signed, true},
		} {
			t.Run(body.Type.String()+" "+name, func(t *testing.T) {
				got := p.initialize(t, row.config, answering(body), row.bend)

				var status *StatusError
				require.ErrorAs(t, got.err, &status)
				assert.Equal(t, StatusRejection, status.Status)
				assert.Equal(t, []string{"badPOP", "notAuthorized"}, status.FailInfo.Names())
				assert.Equal(t, "no such [31muser", status.Text)
				assert.Equal(t, row.authenticated, status.Authenticated)
				assert.Empty(t, warnings(got.logged), "nothing was believed")
			})
		}
	}
}
