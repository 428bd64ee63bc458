package cmp

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// waiting has the responder answer ir with waiting, and then the pollReqs one after the other by polls, where
// nil is the certificate. The last one answers all that follow.
func waiting(polls ...PollRepContent) bend {
	polled := 0
	waiting := PKIStatusInfo{Status: StatusWaiting, StatusString: PKIFreeText{"in the queue"}}
	return func(p *testPKI, r *responder) {
		withBody(func(request *PKIMessage, honest PKIBody) PKIBody {
			switch request.Body.Type {
			case BodyIR:
				return PKIBody{BodyIP, &CertRepMessage{Response: []CertResponse{{Status: waiting}}}}
			case BodyPollReq:
				poll := polls[min(polled, len(polls)-1)]
				if polled++; poll == nil {
					return PKIBody{BodyIP, r.granted(p.leaf(r.t, nil))}
				}
				return PKIBody{BodyPollRep, poll}
			}
			return honest
		})(p, r)
	}
}

// after says to ask again after some seconds.
func after(seconds int64) PollRepContent { return PollRepContent{{CheckAfter: seconds}} }

// onPoll bends what answers pollReq.
func onPoll(change func(body PKIBody) PKIBody) bend {
	return withBody(func(request *PKIMessage, body PKIBody) PKIBody {
		if request.Body.Type == BodyPollReq {
			return change(body)
		}
		return body
	})
}

// delaying puts off the answer to one kind of request by an error message, and then says to wait once
// more before the answer comes (RFC 9483, 4.4).
func delaying(kind BodyType) bend {
	var late *PKIBody
	polled := false
	return withBody(func(request *PKIMessage, honest PKIBody) PKIBody {
		switch {
		case request.Body.Type == kind:
			late = &honest
			return waitingError("busy")
		case request.Body.Type == BodyPollReq && !polled:
			polled = true
			return PKIBody{BodyPollRep, PollRepContent{{CertReqID: -1, CheckAfter: 30}}}
		case request.Body.Type == BodyPollReq:
			return *late
		}
		return honest
	})
}

func TestClient_delayedAnswer_isPolled(t *testing.T) {
	for name, row := range map[string]struct {
		kind     BodyType
		bend     func() bend
		requests string
		id       int64
		takes    time.Duration
	}{
		"waiting in ip": {BodyIR, func() bend { return waiting(after(60), after(0), nil) },
			"ir pollReq pollReq pollReq certConf", 0, 61 * time.Second}, // never less than one
		"pkiConf": {BodyIR, func() bend { return delaying(BodyCertConf) },
			"ir certConf pollReq pollReq", -1, 30 * time.Second},
		"ip": {BodyIR, func() bend { return delaying(BodyIR) }, "ir pollReq pollReq certConf", -1, 30 * time.Second},
		"cp": {BodyCR, func() bend { return delaying(BodyCR) }, "cr pollReq pollReq certConf", -1, 30 * time.Second},
		"kup": {BodyKUR, func() bend { return delaying(BodyKUR) }, "kur pollReq pollReq certConf",
			-1, 30 * time.Second},
		"rp": {BodyRR, func() bend { return delaying(BodyRR) }, "rr pollReq pollReq", -1, 30 * time.Second},
	} {
		for way, toTheRequest := range map[string]bool{"answered to the poll": false, "answered to the request": true} {
			t.Run(name+" "+way, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p := newPKI(t)
					start := time.Now()
					got := p.send(t, row.kind, nil, row.bend(), func(_ *testPKI, r *responder) {
						polls := strings.Count(row.requests, "pollReq")
						r.header = func(request *PKIMessage, h *PKIHeader) {
							kinds := r.kinds()
							if toTheRequest && strings.HasSuffix(kinds, "pollReq") &&
								strings.Count(kinds, "pollReq") == polls {
								h.RecipNonce = r.requests[len(r.requests)-1-polls].Header.SenderNonce
							}
						}
					})

					require.NoError(t, got.err)
					assert.Equal(t, row.requests, got.kinds())
					assert.Equal(t, row.takes, time.Since(start))
					for _, request := range got.requests {
						if request.Body.Type == BodyPollReq {
							assert.Equal(t, PollReqContent{row.id}, request.Body.Content)
						}
					}
				})
			})
		}
	}
}

func TestHostile_polling(t *testing.T) {
	inTheEnd := func(change func(rep *CertRepMessage)) bend {
		return onPoll(func(body PKIBody) PKIBody { change(body.Content.(*CertRepMessage)); return body })
	}
	for name, row := range map[string]struct {
		polls PollRepContent // nil is the certificate
		bend  bend
		takes time.Duration
	}{
		"without end":           {after(10), nil, time.Minute},
		"without end and pause": {after(0), nil, time.Minute},
		// What the CA takes before each pollRep counts as well: three polls with a second between them.
		"by a CA that thinks": {after(0),
			onPoll(func(body PKIBody) PKIBody { time.Sleep(20 * time.Second); return body }), 62 * time.Second},
		"checkAfter negative": {after(-1), nil, 0},
		"checkAfter huge":     {after(1 << 62), nil, 0},
		"with a reason":       {PollRepContent{{CheckAfter: 7200, Reason: PKIFreeText{"operator is out"}}}, nil, 0},
		"another certReqId":   {PollRepContent{{CertReqID: 1}}, nil, 0},
		"two replies":         {PollRepContent{{}, {CertReqID: 1}}, nil, 0},
		"waiting once more": {nil,
			inTheEnd(func(rep *CertRepMessage) { rep.Response[0] = CertResponse{Status: PKIStatusInfo{Status: 3}} }),
			0},
		"cp for ir in the end": {nil, onPoll(func(body PKIBody) PKIBody {
			body.Type = BodyCP
			return body
		}), 0},
		"another certReqId in the end": {nil, inTheEnd(func(rep *CertRepMessage) { rep.Response[0].CertReqID = 1 }), 0},
		"unprotected":                  {after(1), afterwards(unprotected, BodyPollReq), 0},
		"refused in the end": {nil,
			onPoll(func(PKIBody) PKIBody { return refusal("operator said no", FailNotAuthorized) }), 0},
		"pollRep with the first request's nonce": {after(1), func(_ *testPKI, r *responder) {
			r.header = func(_ *PKIMessage, h *PKIHeader) { h.RecipNonce = r.requests[0].Header.SenderNonce }
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPKI(t)
				start := time.Now()
				got := p.initialize(t, func(_ *testPKI, c *Config) { c.MaxPollWait = time.Minute },
					waiting(row.polls), row.bend)

				require.Error(t, got.err)
				text := outline(got.err)
				if strings.HasPrefix(text, "recipNonce") { // its value is random
					text = "recipNonce"
				}
				checkText(t, text)
				assert.Equal(t, row.takes, time.Since(start))
				assertNoSecret(t, got.err.Error(), got.logged.String())
			})
		})
	}
}

func TestHostile_delayedAnswer(t *testing.T) {
	p := newPKI(t)
	delayed := func(kind BodyType, polled PKIBody) bend {
		return bent(answering(waitingError(), kind), answering(polled, BodyPollReq))
	}
	hostiles(t, p, []hostile{
		{"not protected", nil, bent(answering(waitingError()), afterwards(unprotected))},
	}, "ir")
	hostiles(t, p, []hostile{
		{"without end", nil, answering(waitingError())},
		{"pkiConf in place of ip", nil, delayed(BodyIR, PKIBody{BodyPKIConf, PKIConfirmContent{}})},
		{"another certReqId", nil, delayed(BodyIR, PKIBody{BodyPollRep, PollRepContent{{CertReqID: 1}}})},
	}, "ir pollReq")
	hostiles(t, p, []hostile{
		{"ip in place of pkiConf", nil, delayed(BodyCertConf, PKIBody{BodyIP, &CertRepMessage{}})},
		{"refused in the end", nil, delayed(BodyCertConf, refusal("no", FailSystemFailure))},
	}, "ir certConf pollReq")
}

func TestClient_waiting_contextOfCallerBounds(t *testing.T) {
	poll := func(t *testing.T, ctx context.Context) error {
		p := newPKI(t)
		r := &responder{t: t, testPKI: p}
		waiting(after(50))(p, r)
		c, _ := testClient(t, r, nil)
		_, err := c.Initialize(ctx, p.request())
		return err
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
		defer cancel()
		start := time.Now()
		var status *StatusError
		require.ErrorAs(t, poll(t, ctx), &status)
		assert.Equal(t, StatusWaiting, status.Status)
		assert.True(t, status.Authenticated)
		assert.Equal(t, 50*time.Second, time.Since(start), "the second wait would end too late, so it is not begun")
	})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(10*time.Second, cancel)
		assert.EqualError(t, poll(t, ctx), "sending CMP request: waiting for the CA: context canceled")
	})
}
