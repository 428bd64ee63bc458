package cmp

import (
	"crypto/x509"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What is known makes no difference to what verifies: each leaf is also verified by a stranger, who knows nothing.
func TestKnown_verifyChain_asIfNothingWereKnown(t *testing.T) {
	permits := func(c *x509.Certificate) {
		asCA(c)
		c.PermittedDNSDomains, c.PermittedDNSDomainsCritical = []string{"good.example"}, true
	}
	named := func(name string) change { return func(c *x509.Certificate) { c.DNSNames = []string{name} } }
	short := func(c *x509.Certificate) { asCA(c); c.NotAfter = testNow.Add(30 * time.Second) }
	last := func(c *x509.Certificate) { asCA(c); c.MaxPathLenZero = true }
	expired := func(c *x509.Certificate) { c.NotAfter = testNow.Add(-time.Second) }
	for name, row := range map[string]struct {
		rootIs, issuerIs change
		leafIs           change
		after            time.Duration
		forged           bool // by another issuer of the same name
		ok, remembered   bool
	}{
		"another leaf":                              {ok: true, remembered: true},
		"a forged leaf":                             {forged: true, remembered: true},
		"a leaf that has expired":                   {leafIs: expired, remembered: true},
		"an issuer that has expired":                {issuerIs: short, after: 31 * time.Second},
		"a root that has expired":                   {rootIs: short, after: 31 * time.Second},
		"a path that may be another":                {after: 61 * time.Second, ok: true},
		"a name that the root forbids":              {rootIs: permits, leafIs: named("bad.example")},
		"a name that the root allows":               {rootIs: permits, leafIs: named("a.good.example"), ok: true},
		"a name that the issuer forbids":            {issuerIs: permits, leafIs: named("bad.example")},
		"an authority below one that may have none": {issuerIs: last, leafIs: asCA, ok: true, remembered: true},
	} {
		t.Run(name, func(t *testing.T) {
			if row.rootIs == nil {
				row.rootIs = asCA
			}
			if row.issuerIs == nil {
				row.issuerIs = asCA
			}
			root := newIdentity("CN=Root", nil, row.rootIs)
			issuer := newIdentity("CN=Issuer", root, row.issuerIs)
			anchors, others := []*x509.Certificate{root.cert}, []*x509.Certificate{issuer.cert}
			k := newKnown()
			first := newIdentity("CN=first", issuer).cert
			_, err := k.verifyChain(first, anchors, others, testNow)
			require.NoError(t, err)

			by := issuer
			if row.forged {
				by = newIdentity("CN=Issuer", root, row.issuerIs)
			}
			if row.leafIs == nil {
				row.leafIs = func(*x509.Certificate) {}
			}
			leaf, now := newIdentity("CN=second", by, row.leafIs).cert, testNow.Add(row.after)
			assert.Equal(t, row.remembered, k.path(leaf, anchors, others, now) != nil)
			chain, err := k.verifyChain(leaf, anchors, others, now)
			expected, wanted := verifyChain(leaf, anchors, others, now)
			assert.Equal(t, row.ok, err == nil, err)
			assert.Equal(t, expected, chain)
			assert.Equal(t, wanted, err)
			if row.ok {
				assert.Equal(t, []*x509.Certificate{leaf, issuer.cert, root.cert}, chain)
			}
		})
	}
}

// A path is known for the certificates that it was chosen from, and no others.
func TestKnown_verifyChain_withOtherCertificates(t *testing.T) {
	root, other := newIdentity("CN=Root", nil, asCA), newIdentity("CN=Root", nil, asCA)
	issuer := newIdentity("CN=Issuer", root, asCA)
	leaf := newIdentity("CN=leaf", issuer).cert
	k, others := newKnown(), []*x509.Certificate{issuer.cert}
	_, err := k.verifyChain(leaf, []*x509.Certificate{root.cert}, others, testNow)
	require.NoError(t, err)
	_, err = k.verifyChain(leaf, []*x509.Certificate{other.cert}, others, testNow)
	assert.Error(t, err, "the anchor is another")
	_, err = k.verifyChain(leaf, []*x509.Certificate{root.cert}, nil, testNow)
	assert.Error(t, err, "the issuer was not sent")
	_, err = k.verifyChain(leaf, nil, others, testNow)
	assert.Error(t, err, "nothing is trusted")
}

func TestKnown_isBounded(t *testing.T) {
	k := newKnown()
	root := newIdentity("CN=Root", nil, asCA)
	for range 2 * maxKnown {
		issuer := newIdentity("CN=Issuer", root, asCA)
		parsed, err := k.certificate(issuer.cert.Raw)
		require.NoError(t, err)
		again, _ := k.certificate(issuer.cert.Raw)
		assert.Same(t, parsed, again)
		assert.False(t, k.selfSigned(parsed))
		_, err = k.verifyChain(newIdentity("CN=leaf", issuer).cert, []*x509.Certificate{root.cert},
			[]*x509.Certificate{issuer.cert}, testNow)
		require.NoError(t, err)
	}
	assert.LessOrEqual(t, len(k.certificates), maxKnown)
	assert.LessOrEqual(t, len(k.paths), maxPaths)
	leaf := newIdentity("CN=leaf", root).cert
	_, err := k.certificate(leaf.Raw)
	require.NoError(t, err)
	assert.NotContains(t, k.certificates, string(leaf.Raw), "each leaf is another one")
	parsed, _ := k.certificate(root.cert.Raw)
	assert.True(t, k.selfSigned(parsed))
}
