package cmp

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// delaying makes the responder put off the answer to one kind of request by an error message, and then say to wait once
// more before the answer comes (RFC 9483, 4.4).
func delaying(r *responder, kind BodyType) {
	var late *PKIBody
	polled := false
	r.body = func(request *PKIMessage, honest PKIBody) PKIBody {
		switch {
		case request.Body.Type == kind:
			late = &honest
			return PKIBody{BodyError, &ErrorMsgContent{StatusInfo: PKIStatusInfo{Status: StatusWaiting, StatusString: PKIFreeText{"busy"}}}}
		case request.Body.Type == BodyPollReq && !polled:
			polled = true
			return PKIBody{BodyPollRep, PollRepContent{{CertReqID: -1, CheckAfter: 30}}}
		case request.Body.Type == BodyPollReq:
			return *late
		}
		return honest
	}
}

func TestClient_anyDelayedAnswer_isPolled(t *testing.T) {
	for name, row := range map[string]struct {
		delayed BodyType
		call    func(ctx context.Context, p *testPKI, c *Client) error
		want    []BodyType
	}{
		"pkiConf": {BodyCertConf, enrols, []BodyType{BodyIR, BodyCertConf, BodyPollReq, BodyPollReq}},
		"ip":      {BodyIR, enrols, []BodyType{BodyIR, BodyPollReq, BodyPollReq, BodyCertConf}},
		"cp": {BodyCR, func(ctx context.Context, p *testPKI, c *Client) error {
			_, err := c.Certify(ctx, Request{CSR: p.csr, Key: p.key})
			return err
		}, []BodyType{BodyCR, BodyPollReq, BodyPollReq, BodyCertConf}},
		"kup": {BodyKUR, func(ctx context.Context, p *testPKI, c *Client) error {
			_, err := c.UpdateKey(ctx, Request{CSR: p.csr, Key: p.key}, Signer{Key: p.old.key, Certificate: p.old.cert})
			return err
		}, []BodyType{BodyKUR, BodyPollReq, BodyPollReq, BodyCertConf}},
		"rp": {BodyRR, func(ctx context.Context, p *testPKI, c *Client) error {
			return c.Revoke(ctx, p.old.cert)
		},
			[]BodyType{BodyRR, BodyPollReq, BodyPollReq}},
	} {
		for way, nonceOfFirst := range map[string]bool{"answered to the poll": false, "answered to the request": true} {
			t.Run(name+" "+way, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p := newPKI(t)
					r := &responder{t: t, testPKI: p}
					delaying(r, row.delayed)
					if nonceOfFirst {
						r.header = func(request *PKIMessage, h *PKIHeader) {
							for i, asked := range r.requests {
								if i == len(r.requests)-1 && asked.Body.Type == BodyPollReq && r.requests[i-1].Body.Type == BodyPollReq {
									h.RecipNonce = r.requests[i-2].Header.SenderNonce
								}
							}
						}
					}
					c, _ := testClient(t, r, nil)
					start := time.Now()

					require.NoError(t, row.call(t.Context(), p, c))

					assert.Equal(t, row.want, r.kinds())
					assert.Equal(t, 30*time.Second, time.Since(start))
					for _, request := range r.requests {
						if request.Body.Type == BodyPollReq {
							assert.Equal(t, PollReqContent{-1}, request.Body.Content)
						}
					}
				})
			})
		}
	}
}

func enrols(ctx context.Context, p *testPKI, c *Client) error {
	_, err := c.Initialize(ctx, Request{CSR: p.csr, Key: p.key})
	return err
}

func TestHostile_delayedAnswer(t *testing.T) {
	p := newPKI(t)
	waiting := PKIBody{BodyError, &ErrorMsgContent{StatusInfo: PKIStatusInfo{Status: StatusWaiting}}}
	only := func(kind BodyType, body PKIBody) func(*testPKI, *responder) {
		return func(_ *testPKI, r *responder) {
			r.body = func(request *PKIMessage, honest PKIBody) PKIBody {
				switch request.Body.Type {
				case kind:
					return waiting
				case BodyPollReq:
					return body
				}
				return honest
			}
		}
	}
	unprotected := func(_ *testPKI, r *responder) {
		only(BodyIR, waiting)(nil, r)
		r.message = func(_, m *PKIMessage) { m.Protection, m.Header.ProtectionAlg = nil, nil }
	}
	for name, row := range map[string]struct {
		hostile
		kinds []BodyType
	}{
		"not protected":          {hostile{respond: unprotected, want: "protection: none"}, []BodyType{BodyIR}},
		"without end":            {hostile{respond: only(BodyIR, waiting), want: "status: waiting in an error message as the answer to pollReq"}, []BodyType{BodyIR, BodyPollReq}},
		"pkiConf in place of ip": {hostile{respond: only(BodyIR, PKIBody{BodyPKIConf, PKIConfirmContent{}}), want: "body type: pkiconf"}, []BodyType{BodyIR, BodyPollReq}},
		"ip in place of pkiConf": {hostile{respond: only(BodyCertConf, PKIBody{BodyIP, &CertRepMessage{}}), want: "body type: ip"},
			[]BodyType{BodyIR, BodyCertConf, BodyPollReq}},
		"another certReqId": {hostile{respond: only(BodyIR, PKIBody{BodyPollRep, PollRepContent{{CertReqID: 1}}}), want: "certReqId: 1"},
			[]BodyType{BodyIR, BodyPollReq}},
		"refused in the end": {hostile{respond: only(BodyCertConf, PKIBody{BodyError, &ErrorMsgContent{StatusInfo: Rejection("no", FailSystemFailure)}}),
			want: `confirming certificate: CA refused: rejection, systemFailure: "no"`}, []BodyType{BodyIR, BodyCertConf, BodyPollReq}},
	} {
		t.Run(name, func(t *testing.T) {
			r := row.run(t, p)
			assert.Equal(t, row.kinds, r.kinds())
		})
	}
}
