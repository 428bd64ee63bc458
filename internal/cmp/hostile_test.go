package cmp

import (
	"bytes"
	"context"
	"crypto/rsa"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// Most hostile answers are in testdata/answers. These need more than words.

func TestHostile_signatureUnderAlgorithmOfMAC(t *testing.T) {
	p := newPlay(t, "> client TrustAnchors = root\n> signed\n> sent Header.ProtectionAlg = pbm default")
	_, err := p.send(BodyIR)
	assert.ErrorContains(t, err, "checking MAC of the CMP answer") // whose length varies
}

func TestHostile_answerReplayed(t *testing.T) {
	p := newPlay(t, "> client ImplicitConfirm = true\n> answer Header.GeneralInfo = implicitConfirm")
	var recorded []byte
	p.on(sent, func(a *answer) {
		if recorded == nil {
			recorded = fixture.Must(a.Marshal())
		}
		a.Bytes = recorded
	})
	_, err := p.send(BodyIR)
	require.NoError(t, err, "the first time the answer is good")
	_, err = p.send(BodyIR)
	assert.ErrorContains(t, err, "checking transactionID of the CMP answer")
}

// A name is compared with each certificate that comes along, and a key tried on each signature:
// both cost little, however large they are.
func TestHostile_hugeKeysAndNames_costLittle(t *testing.T) {
	const anchored, onap = "> client TrustAnchors = root\n", "> client ResponseTrust = onap\n"
	const bits = 131_072 // one verification takes half a minute
	n := new(big.Int).Lsh(big.NewInt(3), bits-2)
	huge := &rsa.PublicKey{N: n.Add(n, big.NewInt(12345)), E: 1<<31 - 1}
	verified := func(p *play, a *answer) {
		cert := issue(testRecipient, huge, p.named["ca"], nil, asCA)
		a.Header.ProtectionAlg = &AlgorithmIdentifier{Algorithm: signatureAlgorithms[0].oid, Parameters: derNull}
		a.Protection = make([]byte, huge.Size())
		a.Protection[1] = 1 // less than the modulus, or it would be refused for that
		a.ExtraCerts = slices.Repeat([][]byte{cert.Raw}, maxSignerCandidates)
	}
	compared := func(p *play, a *answer) {
		a.Header.Sender = DirectoryName(hugeName(800_000))
		require.NoError(t, ProtectSignature(a.PKIMessage, p.named["ca"].key))
		a.ExtraCerts = slices.Repeat([][]byte{newIdentity("CN=s", p.named["ca"]).cert.Raw}, maxElements)
	}
	for name, row := range map[string]struct {
		commands string
		change   func(*play, *answer)
	}{
		"key, anchored": {anchored, verified}, "key, without anchors": {"", verified},
		"key, as ONAP did": {onap, verified}, "name": {anchored, compared},
	} {
		p := newPlay(t, row.commands)
		p.on(sent, func(a *answer) { row.change(p, a) })
		start := time.Now()
		_, err := p.send(BodyIR)
		assert.Error(t, err, name)
		assert.Less(t, time.Since(start), 20*time.Second, "%s: minutes, if they were tried", name)
	}
}

// hugeName is a DER Name with a value of that many bytes, each of which takes four when it is
// quoted.
func hugeName(size int) []byte {
	value := wrap(0x0c, bytes.Repeat([]byte{1}, size))
	return wrap(0x30, wrap(0x31, fixture.Must(attribute(attributeTypes["CN"], value))))
}

// Names of signers, of issuers and in the certificate come from the peer, who can make them a
// megabyte long.
func TestHostile_namesOfPeers_areBoundedInErrorsAndWarnings(t *testing.T) {
	var names strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&names, " name-%d-that-was-not-requested.example", i)
	}
	const huge = "> make huge: CN=any; as CA; RawSubject = huge\n"
	for name, commands := range map[string]string{
		"sender":  "> client TrustAnchors = root\n> answer Header.Sender = huge\n> signed",
		"signer":  huge + "> client ResponseTrust = onap\n> signed by huge",
		"issuer":  huge + "> grant ; by huge",
		"subject": "> grant ; RawSubject = huge",
		"names":   "> grant ; DNSNames =" + names.String(),
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlay(t, commands)
			_, err := p.send(BodyIR)
			text := fmt.Sprint(err)
			assert.Less(t, len(text), 3*maxShownText)
			assert.Less(t, p.log.Len(), 6*maxShownText)
			assert.Contains(t, text+p.log.String(), "…", "something was cut")
			for _, request := range p.requests {
				assert.Less(t, len(fixture.Must(request.Marshal())), 6*maxShownText, "to the CA")
			}
		})
	}
}

func TestClient_waiting_contextOfCallerBounds(t *testing.T) {
	poll := func(t *testing.T, ctx context.Context) error {
		p := newPlay(t, "> answer to ir is ip waiting\n> answer to pollReq is pollRep 0 50")
		_, err := fixture.Must(New(p.config)).Initialize(ctx, p.request())
		return err
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
		defer cancel()
		start := time.Now()
		assert.ErrorContains(t, poll(t, ctx), `CA has not decided in time: waiting: " (asked to check again`)
		assert.Equal(t, 50*time.Second, time.Since(start), "no second wait, which would end too late")
	})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(10*time.Second, cancel)
		err := poll(t, ctx)
		assert.EqualError(t, err, "sending CMP request: waiting for the CA: context canceled")
		var transport *TransportError
		require.ErrorAs(t, err, &transport)
		assert.ErrorIs(t, err, context.Canceled)
		assert.False(t, transport.Timeout)
	})
}
