package cmp

import (
	"bytes"
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// waiting makes the responder answer ir with waiting, and then the pollReqs one after the other by polls, where
// nil is the certificate. The last one answers all that follow.
func waiting(p *testPKI, r *responder, polls ...PollRepContent) {
	polled := 0
	r.body = func(request *PKIMessage, honest PKIBody) PKIBody {
		switch request.Body.Type {
		case BodyIR:
			return PKIBody{BodyIP, &CertRepMessage{Response: []CertResponse{{Status: PKIStatusInfo{Status: StatusWaiting, StatusString: PKIFreeText{"in the queue"}}}}}}
		case BodyPollReq:
			poll := polls[min(polled, len(polls)-1)]
			if polled++; poll == nil {
				return PKIBody{BodyIP, r.granted(p.leaf(r.t, nil))}
			}
			return PKIBody{BodyPollRep, poll}
		}
		return honest
	}
}

func TestClient_waiting_isPolled(t *testing.T) {
	for name, delayed := range map[string]bool{"answer to the poll": false, "answer to the first request, delayed": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPKI(t)
				r := &responder{t: t, testPKI: p}
				waiting(p, r, PollRepContent{{CheckAfter: 60}}, PollRepContent{{CheckAfter: 0}}, nil)
				if delayed {
					r.header = func(request *PKIMessage, h *PKIHeader) {
						if len(r.requests) == 4 {
							h.RecipNonce = r.requests[0].Header.SenderNonce
						}
					}
				}
				c, _ := testClient(t, r, nil)
				start := time.Now()

				result, err := c.Initialize(t.Context(), Request{CSR: p.csr, Key: p.key})

				require.NoError(t, err)
				assert.Len(t, result.Chain, 2)
				assert.Equal(t, 61*time.Second, time.Since(start), "60 s as told, and never less than one")
				assert.Equal(t, []BodyType{BodyIR, BodyPollReq, BodyPollReq, BodyPollReq, BodyCertConf}, r.kinds())
				assert.Equal(t, PollReqContent{0}, r.requests[1].Body.Content)
			})
		})
	}
}

func TestHostile_polling(t *testing.T) {
	rep := func(checkAfter int64) PollRepContent { return PollRepContent{{CheckAfter: checkAfter}} }
	for name, row := range map[string]struct {
		polls  []PollRepContent
		change func(p *testPKI, r *responder)
		want   string
		after  time.Duration // that it takes
	}{
		"without end": {[]PollRepContent{rep(10)}, nil,
			`CA has not decided in time: waiting: "in the queue (asked to check again after 10 s)"`, time.Minute},
		"without end and pause": {[]PollRepContent{rep(0)}, nil,
			`CA has not decided in time: waiting: "in the queue (asked to check again after 0 s)"`, time.Minute},
		"checkAfter negative": {[]PollRepContent{rep(-1)}, nil, "checkAfter: -1", 0},
		"checkAfter huge": {[]PollRepContent{rep(1 << 62)}, nil,
			`CA has not decided in time: waiting: "in the queue (asked to check again after 4611686018427387904 s)"`, 0},
		"with a reason": {[]PollRepContent{{{CheckAfter: 7200, Reason: PKIFreeText{"operator is out"}}}}, nil,
			`CA has not decided in time: waiting: "operator is out (asked to check again after 7200 s)"`, 0},
		"another certReqId": {[]PollRepContent{{{CertReqID: 1}}}, nil, "certReqId: 1", 0},
		"two replies":       {[]PollRepContent{{{}, {CertReqID: 1}}}, nil, "pollRep: 2 replies", 0},
		"waiting once more": {[]PollRepContent{nil}, stillWaiting, "status: waiting as the answer to pollReq", 0},
		"cp for ir in the end": {[]PollRepContent{nil}, func(_ *testPKI, r *responder) { r.header, r.body = nil, retype(r.body, BodyCP) },
			"body type: cp", 0},
		"another certReqId in the end": {[]PollRepContent{nil}, func(_ *testPKI, r *responder) {
			honest := r.body
			r.body = func(request *PKIMessage, body PKIBody) PKIBody {
				body = honest(request, body)
				if request.Body.Type == BodyPollReq {
					body.Content.(*CertRepMessage).Response[0].CertReqID = 1
				}
				return body
			}
		}, "certReqId: 1", 0},
		"pollRep with the first request's nonce": {[]PollRepContent{rep(1)}, func(_ *testPKI, r *responder) {
			r.header = func(_ *PKIMessage, h *PKIHeader) { h.RecipNonce = r.requests[0].Header.SenderNonce }
		}, "recipNonce", 0},
		"unprotected": {[]PollRepContent{rep(1)}, func(_ *testPKI, r *responder) {
			r.message = func(request, m *PKIMessage) {
				if request.Body.Type == BodyPollReq {
					m.Protection = nil
				}
			}
		}, "protection: none", 0},
		"refused in the end": {[]PollRepContent{nil}, func(_ *testPKI, r *responder) {
			r.body = func(original func(*PKIMessage, PKIBody) PKIBody) func(*PKIMessage, PKIBody) PKIBody {
				return func(request *PKIMessage, honest PKIBody) PKIBody {
					if request.Body.Type == BodyPollReq {
						return PKIBody{BodyIP, &CertRepMessage{Response: []CertResponse{{Status: Rejection("operator said no", FailNotAuthorized)}}}}
					}
					return original(request, honest)
				}
			}(r.body)
		}, `CA refused: rejection, notAuthorized: "operator said no"`, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPKI(t)
				r := &responder{t: t, testPKI: p}
				waiting(p, r, row.polls...)
				if row.change != nil {
					row.change(p, r)
				}
				c, log := testClient(t, r, func(c *Config) { c.MaxPollWait = time.Minute })
				start := time.Now()

				_, err := c.Initialize(t.Context(), Request{CSR: p.csr, Key: p.key})

				require.Error(t, err)
				got := outline(err)
				if row.want == "recipNonce" { // its value is random
					got = got[:min(len(got), len(row.want))]
				}
				assert.Equal(t, row.want, got)
				assert.Equal(t, row.after, time.Since(start))
				assertNoSecret(t, err.Error(), log.String())
			})
		})
	}
}

// stillWaiting has the CA answer pollReq by the waiting ip that ir was answered with.
func stillWaiting(_ *testPKI, r *responder) {
	original := r.body
	r.body = func(request *PKIMessage, honest PKIBody) PKIBody {
		first := &PKIMessage{Body: PKIBody{Type: BodyIR}}
		return original(first, honest)
	}
}

// retype gives the certificate at the end in a body of another type.
func retype(original func(*PKIMessage, PKIBody) PKIBody, kind BodyType) func(*PKIMessage, PKIBody) PKIBody {
	return func(request *PKIMessage, honest PKIBody) PKIBody {
		body := original(request, honest)
		if request.Body.Type == BodyPollReq {
			body.Type = kind
		}
		return body
	}
}

func TestClient_waiting_deadlineOfCallerBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPKI(t)
		r := &responder{t: t, testPKI: p}
		waiting(p, r, PollRepContent{{CheckAfter: 50}})
		c, _ := testClient(t, r, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
		defer cancel()
		start := time.Now()

		_, err := c.Initialize(ctx, Request{CSR: p.csr, Key: p.key})

		var status *StatusError
		require.ErrorAs(t, err, &status)
		assert.Equal(t, StatusWaiting, status.Status)
		assert.True(t, status.Authenticated)
		assert.Equal(t, 50*time.Second, time.Since(start), "the second wait would end too late, so it is not begun")
	})
}

func TestClient_waiting_cancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPKI(t)
		r := &responder{t: t, testPKI: p}
		waiting(p, r, PollRepContent{{CheckAfter: 50}})
		c, _ := testClient(t, r, nil)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(10*time.Second, cancel)

		_, err := c.Initialize(ctx, Request{CSR: p.csr, Key: p.key})

		assert.EqualError(t, err, "sending CMP request: waiting for the CA: context canceled")
	})
}

func TestClient_refusals_areTyped(t *testing.T) {
	p := newPKI(t)
	info := Rejection("no\nsuch \x1b[31muser\u202e", FailNotAuthorized, FailBadPOP)
	refusals := map[string]PKIBody{
		"error message": {BodyError, &ErrorMsgContent{StatusInfo: info}},
		"rejection":     {BodyIP, &CertRepMessage{Response: []CertResponse{{Status: info}}}},
	}
	for name, body := range refusals {
		for name2, row := range map[string]struct {
			change        func(r *responder)
			authenticated bool
		}{
			"by MAC":      {func(*responder) {}, true},
			"under a 4xx": {func(r *responder) { r.status = 403 }, true},
			"unprotected": {func(r *responder) {
				r.message = func(_, m *PKIMessage) { m.Protection, m.Header.ProtectionAlg = nil, nil }
			}, false},
			"wrong MAC": {func(r *responder) { r.message = func(_, m *PKIMessage) { m.Protection[0] ^= 1 } }, false},
			"signed":    {func(r *responder) { r.signed = true }, false},
			"without IDs": {func(r *responder) {
				r.header = func(_ *PKIMessage, h *PKIHeader) { h.TransactionID, h.RecipNonce, h.PVNO = nil, nil, 1 }
			}, false},
		} {
			t.Run(name+" "+name2, func(t *testing.T) {
				r := &responder{t: t, testPKI: p, body: func(*PKIMessage, PKIBody) PKIBody { return body }}
				row.change(r)
				c, _ := testClient(t, r, nil)

				_, err := c.Initialize(t.Context(), Request{CSR: p.csr, Key: p.key})

				var status *StatusError
				require.ErrorAs(t, err, &status)
				assert.Equal(t, StatusRejection, status.Status)
				assert.Equal(t, []string{"badPOP", "notAuthorized"}, status.FailInfo.Names())
				assert.Equal(t, "no such [31muser", status.Text)
				assert.Equal(t, row.authenticated, status.Authenticated)
			})
		}
	}
}

func TestClient_refusalOfAnotherTransaction_isNotBelieved(t *testing.T) {
	p := newPKI(t)
	ones := bytes.Repeat([]byte{1}, NonceSize)
	for want, change := range map[string]func(*PKIMessage, *PKIHeader){
		"transactionID: 01010101010101010101010101010101": func(_ *PKIMessage, h *PKIHeader) { h.TransactionID = ones },
		"recipNonce: 01010101010101010101010101010101":    func(_ *PKIMessage, h *PKIHeader) { h.RecipNonce = ones },
	} {
		hostile{respond: func(_ *testPKI, r *responder) {
			r.body = func(*PKIMessage, PKIBody) PKIBody {
				return PKIBody{BodyError, &ErrorMsgContent{StatusInfo: Rejection("no")}}
			}
			r.header = change
		}, want: want}.run(t, p)
	}
}
