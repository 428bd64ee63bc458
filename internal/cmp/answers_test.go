package cmp

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
)

// TestClient_answers plays what testdata/answers has: commands (see play), and then, for each kind
// of request, what was sent, how long it took, what came of it, and what was logged as a warning.
func TestClient_answers(t *testing.T) {
	golden.Play(t, "answers/*.txt", func(t *testing.T, title, commands string) (outcomes string) {
		t.Parallel()
		kinds := "ir"
		if first, _, _ := strings.Cut(commands, "\n"); strings.HasPrefix(first, "> request ") {
			kinds = strings.TrimPrefix(first, "> request ")
		}
		for kind := range strings.FieldsSeq(kinds) {
			synctest.Test(t, func(t *testing.T) {
				outcome := newPlay(t, commands).outcome(kind)
				outcomes += outcome
				if kind != "rr" {
					checkRelayed(t, title, commands, fixture.ByName[BodyType](kind),
						strings.Contains(outcome, ": accepted"))
				}
			})
		}
		return outcomes
	})
}

// outcome sends a request of a kind and says what came of it.
func (p *play) outcome(kind string) string {
	start := time.Now()
	result, err := p.send(fixture.ByName[BodyType](kind))
	text := p.kinds()
	if took := time.Since(start); took > 0 {
		text += " in " + took.String()
	}
	assertNoSecret(p.t, p.log.String(), fmt.Sprint(err))
	if err != nil {
		assert.Empty(p.t, result, "nothing may come of it")
		text += ": " + outline(err)
	} else if kind == "rr" {
		text += ": revoked"
	} else {
		text += ": " + p.accepted(result)
	}
	p.checkRefusals()
	for i, request := range p.requests {
		nonce := fmt.Sprintf("%x", request.Header.SenderNonce)
		text = strings.ReplaceAll(text, nonce, fmt.Sprintf("nonce of request %d", i+1))
	}
	return text + "\n" + p.warnings()
}

// accepted checks a result and describes it.
func (p *play) accepted(result Result) string {
	require.NotEmpty(p.t, result.Chain)
	leaf := result.Chain[0]
	assert.True(p.t, pki.SameKey(leaf.PublicKey, p.csr.PublicKey))
	for i, by := range append(slices.Clone(result.Chain[1:]), result.Trusted[0]) {
		c := result.Chain[i]
		assert.NoError(p.t, by.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature))
	}
	for _, request := range p.requests {
		if statuses, ok := request.Body.Content.(CertConfirmContent); ok {
			hash, _ := CertHash(leaf)
			assert.Equal(p.t, CertConfirmContent{{CertHash: hash}}, statuses)
		}
	}
	names := func(certs []*x509.Certificate) string {
		name := func(c *x509.Certificate) string { return strconv.Quote(pki.DN(c.RawSubject)) }
		return strings.Join(fixture.Each(certs, name), ", ")
	}
	text := "accepted " + names(result.Chain) + ", trusting " + names(result.Trusted)
	if len(result.Vouched) > 0 {
		text += ", vouching for " + names(result.Vouched)
	}
	return text
}

// checkRefusals: a rejection of the certificate says why, and what is asked for is the revocation
// of the old certificate, or of one that was refused, in another transaction.
func (p *play) checkRefusals() {
	for i, request := range p.requests {
		statuses, _ := request.Body.Content.(CertConfirmContent)
		for _, status := range statuses {
			assert.NotEmpty(p.t, status.CertHash)
			if status.StatusInfo != nil {
				assert.Equal(p.t, StatusRejection, status.StatusInfo.Status)
				assert.NotEmpty(p.t, status.StatusInfo.StatusString)
			}
		}
		if request.Body.Type != BodyRR {
			continue
		}
		revoked, details := p.named["old"].cert, request.Body.Content.(RevReqContent)[0]
		if i > 0 {
			revoked = p.named["issued"].cert
			assert.True(p.t, request.MACProtected())
			assert.NotEqual(p.t, p.requests[0].Header.TransactionID, request.Header.TransactionID)
		}
		assert.Equal(p.t, revoked.SerialNumber, details.CertDetails.SerialNumber)
		assert.Equal(p.t, revoked.RawIssuer, details.CertDetails.Issuer)
		reason := []pkix.Extension{{Id: oidReasonCode, Value: []byte{10, 1, 5}}}
		assert.Equal(p.t, reason, details.CRLEntryDetails)
	}
}

// warnings are what was logged for people to see, without what is random.
func (p *play) warnings() (text string) {
	for line := range strings.Lines(p.log.String()) {
		var event map[string]any
		require.NoError(p.t, json.Unmarshal([]byte(line), &event))
		if event["level"] == "DEBUG" {
			continue
		}
		text += fmt.Sprintf("%s: %s", event["level"], event["msg"])
		for _, name := range []string{"time", "level", "msg", "serial"} {
			delete(event, name)
		}
		for _, key := range slices.Sorted(maps.Keys(event)) {
			text += fmt.Sprintf("; %s %v", key, event[key])
		}
		text += "\n"
	}
	return text
}

func readCertificateFile(name string) []byte {
	text := fixture.Must(os.ReadFile("../../test/testdata/certificates/" + name + ".pem"))
	block, _ := pem.Decode(text)
	return block.Bytes
}
