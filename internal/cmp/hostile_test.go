package cmp

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The hostile answers, by group: this file has those that are wrong in their encoding or in how they
// are bound to the request. hostile_protection_test.go, hostile_certificate_test.go, hostile_http_test.go and
// poll_test.go have the others.

func TestHostile_encoding(t *testing.T) {
	p := newPKI(t)
	bend := func(change func([]byte) []byte) func(*testPKI, *responder) {
		return func(_ *testPKI, r *responder) { r.der = change }
	}
	for name, row := range map[string]hostile{
		"cut off": {respond: bend(func(der []byte) []byte { return der[:len(der)-1] }),
			want: "structure: a body that does not parse (decoding PKIMessage: not DER)"},
		"cut off after the first byte": {respond: bend(func(der []byte) []byte { return der[:1] }),
			want: "structure: a body that does not parse (decoding PKIMessage: not DER)"},
		"with trailing bytes": {respond: bend(func(der []byte) []byte { return append(der, 5, 0) }),
			want: "structure: a body that does not parse (decoding PKIMessage: has 2 bytes after its last field)"},
		"of indefinite length": {respond: bend(func(der []byte) []byte { return append(append([]byte{0x30, 0x80}, der[4:]...), 0, 0) }),
			want: "structure: a body that does not parse (decoding PKIMessage: not DER)"},
		"with a length in more bytes than due": {respond: bend(func(der []byte) []byte { return append([]byte{0x30, 0x83, 0}, der[2:]...) }),
			want: "structure: a body that does not parse (decoding PKIMessage: not DER)"},
		"with a length of four gigabytes": {respond: bend(func(der []byte) []byte { return append([]byte{0x30, 0x84, 0xff, 0xff, 0xff, 0xff}, der[4:]...) }),
			want: "structure: a body that does not parse (decoding PKIMessage: not DER)"},
		"nested 10,000 deep": {respond: bend(func([]byte) []byte {
			der := []byte{0x30, 0}
			for range 10_000 {
				der = wrap(0x30, der)
			}
			return der
		}), want: "structure: a body that does not parse (decoding PKIMessage: nested deeper than 32 levels)"},
		"with 10,000 extraCerts": {respond: func(_ *testPKI, r *responder) {
			r.message = func(_, m *PKIMessage) {
				for range 10_000 {
					m.ExtraCerts = append(m.ExtraCerts, anyCertificate)
				}
			}
		}, want: "structure: a body that does not parse (extraCerts: has more than 128 elements)"},
		"that is not DER at all, under an error status": {respond: func(_ *testPKI, r *responder) {
			r.status, r.der = 500, func([]byte) []byte { return []byte("out of memory") }
		}, want: "sending CMP request: HTTP status 500: decoding PKIMessage: not DER"},
		"good, under an error status": {respond: func(_ *testPKI, r *responder) { r.status = 500 },
			want: "sending CMP request: HTTP status 500: with a CMP message (ip) that is no refusal"},
		"the request echoed back": {respond: func(_ *testPKI, r *responder) {
			r.der = func([]byte) []byte {
				der, err := r.requests[0].Marshal()
				require.NoError(t, err)
				return der
			}
		}, want: "body type: ir"},
	} {
		t.Run(name, func(t *testing.T) {
			row.run(t, p)
		})
	}
}

func TestHostile_binding(t *testing.T) {
	p := newPKI(t)
	header := func(change func(request *PKIMessage, h *PKIHeader)) func(*testPKI, *responder) {
		return func(_ *testPKI, r *responder) { r.header = change }
	}
	body := func(change func(honest PKIBody) PKIBody) func(*testPKI, *responder) {
		return func(_ *testPKI, r *responder) {
			r.body = func(_ *PKIMessage, honest PKIBody) PKIBody { return change(honest) }
		}
	}
	response := func(change func(rep *CertRepMessage)) func(*testPKI, *responder) {
		return body(func(honest PKIBody) PKIBody {
			if rep, ok := honest.Content.(*CertRepMessage); ok {
				change(rep)
			}
			return honest
		})
	}
	ones := bytes.Repeat([]byte{1}, NonceSize)
	const hexOnes = "01010101010101010101010101010101"
	for name, row := range map[string]hostile{
		"other transactionID":   {respond: header(func(_ *PKIMessage, h *PKIHeader) { h.TransactionID = ones }), want: "transactionID: " + hexOnes},
		"no transactionID":      {respond: header(func(_ *PKIMessage, h *PKIHeader) { h.TransactionID = nil }), want: "transactionID: none"},
		"other recipNonce":      {respond: header(func(_ *PKIMessage, h *PKIHeader) { h.RecipNonce = ones }), want: "recipNonce: " + hexOnes},
		"no recipNonce":         {respond: header(func(_ *PKIMessage, h *PKIHeader) { h.RecipNonce = nil }), want: "recipNonce: none"},
		"no senderNonce":        {respond: header(func(_ *PKIMessage, h *PKIHeader) { h.SenderNonce = nil }), want: "senderNonce: none"},
		"empty senderNonce":     {respond: header(func(_ *PKIMessage, h *PKIHeader) { h.SenderNonce = []byte{} }), want: "senderNonce: none"},
		"our nonce reflected":   {respond: header(func(r *PKIMessage, h *PKIHeader) { h.SenderNonce = r.Header.SenderNonce }), want: "senderNonce: ours"},
		"version 1":             {respond: header(func(_ *PKIMessage, h *PKIHeader) { h.PVNO = 1 }), want: "pvno: 1"},
		"version 4":             {respond: header(func(_ *PKIMessage, h *PKIHeader) { h.PVNO = 4 }), want: "pvno: 4"},
		"made long ago":         {respond: header(func(_ *PKIMessage, h *PKIHeader) { h.MessageTime = testNow.Add(-16 * time.Minute) }), want: "messageTime: 2026-05-04T02:46:01Z"},
		"made in the future":    {respond: header(func(_ *PKIMessage, h *PKIHeader) { h.MessageTime = testNow.Add(16 * time.Minute) }), want: "messageTime: 2026-05-04T03:18:01Z"},
		"cp for ir or kur":      {respond: body(func(honest PKIBody) PKIBody { honest.Type = BodyCP; return honest }), want: "body type: cp"},
		"pkiconf":               {respond: body(func(PKIBody) PKIBody { return PKIBody{BodyPKIConf, PKIConfirmContent{}} }), want: "body type: pkiconf"},
		"pollRep":               {respond: body(func(PKIBody) PKIBody { return PKIBody{BodyPollRep, PollRepContent{{}}} }), want: "body type: pollRep"},
		"certReqId 1":           {respond: response(func(rep *CertRepMessage) { rep.Response[0].CertReqID = 1 }), want: "certReqId: 1"},
		"certReqId -1":          {respond: response(func(rep *CertRepMessage) { rep.Response[0].CertReqID = -1 }), want: "certReqId: -1"},
		"no CertResponse":       {respond: response(func(rep *CertRepMessage) { rep.Response = nil }), want: "CertResponse: 0"},
		"two CertResponses":     {respond: response(func(rep *CertRepMessage) { rep.Response = append(rep.Response, rep.Response[0]) }), want: "CertResponse: 2"},
		"accepted with nothing": {respond: response(func(rep *CertRepMessage) { rep.Response[0].CertifiedKeyPair = nil }), want: "certificate: none, with status accepted"},
		"rejected with a certificate": {respond: response(func(rep *CertRepMessage) { rep.Response[0].Status = Rejection("no", FailBadPOP) }),
			want: "status: rejection together with a certificate"},
		"waiting with a certificate": {respond: response(func(rep *CertRepMessage) { rep.Response[0].Status.Status = StatusWaiting }),
			want: "status: waiting together with a certificate"},
		"keyUpdateWarning": {respond: response(func(rep *CertRepMessage) { rep.Response[0].Status.Status = StatusKeyUpdateWarning }),
			want: "status: keyUpdateWarning"},
		"status 99": {respond: response(func(rep *CertRepMessage) { rep.Response[0].Status.Status = 99 }), want: "status: status 99"},
	} {
		for _, kind := range []BodyType{BodyIR, BodyKUR} {
			t.Run(name+", to "+kind.String(), func(t *testing.T) {
				r := row.runAs(t, p, kind)
				assert.Equal(t, []BodyType{kind}, r.kinds(), "nothing is confirmed")
			})
		}
	}
	for kind, answer := range map[BodyType]BodyType{BodyIR: BodyKUP, BodyKUR: BodyIP} {
		t.Run(answer.String()+" for "+kind.String(), func(t *testing.T) {
			row := hostile{respond: body(func(honest PKIBody) PKIBody { honest.Type = answer; return honest }), want: "body type: " + answer.String()}
			r := row.runAs(t, p, kind)
			assert.Equal(t, []BodyType{kind}, r.kinds(), "nothing is confirmed")
		})
	}
}

func TestHostile_answerReplayed(t *testing.T) {
	p := newPKI(t)
	var recorded []byte
	r := &responder{t: t, testPKI: p, der: func(der []byte) []byte {
		if recorded == nil {
			recorded = der
		}
		return recorded
	}}
	c, _ := testClient(t, r, func(c *Config) { c.ImplicitConfirm = true })
	r.grant = true
	_, err := c.Initialize(t.Context(), Request{CSR: p.csr, Key: p.key})
	require.NoError(t, err, "the first time the answer is good")

	_, err = c.Initialize(t.Context(), Request{CSR: p.csr, Key: p.key})

	var check *CheckError
	require.ErrorAs(t, err, &check)
	assert.Equal(t, "transactionID", check.Check)
}
