package cmp

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// minPollWait is waited at least between two polls, so that checkAfter 0 does not make us spin.
const minPollWait = time.Second

// awaitDecision polls while the CA says to wait, and returns the response that decides with the
// message it came in (RFC 9810, 5.3.22; RFC 9483, 4.4).
func (t *transaction) awaitDecision(ctx context.Context, answer *PKIMessage) (CertResponse, *PKIMessage, error) {
	response, err := certResponse(answer)
	if err != nil || response.Status.Status != StatusWaiting {
		return response, answer, err
	}
	if response.CertifiedKeyPair != nil {
		return response, nil, &CheckError{Check: "status",
			Got: "waiting together with a certificate", Want: "one or the other"}
	}
	if err := t.noteWaiting(response.CertReqID); err != nil {
		return response, nil, err
	}
	return t.pollForDecision(ctx, []BodyType{answer.Body.Type}, response.CertReqID, response.Status.StatusString)
}

// pollForDecision polls for the response that decides.
func (t *transaction) pollForDecision(ctx context.Context, awaited []BodyType, id int64,
	reason PKIFreeText) (response CertResponse, answer *PKIMessage, err error) {
	if answer, err = t.poll(ctx, awaited, id, reason); err != nil {
		return response, nil, err
	}
	if response, err = certResponse(answer); err != nil {
		return response, nil, err
	}
	if response.Status.Status == StatusWaiting {
		return response, nil, &CheckError{Check: "status", Got: "waiting as the answer to pollReq",
			Want: "pollRep or a decision"}
	}
	return response, answer, nil
}

// wholeAnswer is the certReqId of a pollReq for an answer that was put off as a whole (RFC 9810,
// 5.3.22; RFC 9483, 4.4).
const wholeAnswer = -1

// awaitAnswer polls for an answer that the CA put off by an error message with the status waiting,
// such as pkiConf (RFC 9483, 4.4). It acts on that message, other than on a refusal, so that it
// must pass every check.
func (t *transaction) awaitAnswer(ctx context.Context, m *PKIMessage, request BodyType) (*PKIMessage, error) {
	if err := t.checkOrigin(m, request); err != nil {
		return nil, err
	}
	if request == BodyPollReq {
		return nil, &CheckError{Check: "status", Got: "waiting in an error message as the answer to pollReq",
			Want: "pollRep or a decision"}
	}
	t.peerNonce = m.Header.SenderNonce
	if answersWithCertificate(request) {
		if err := t.noteWaiting(wholeAnswer); err != nil {
			return nil, err
		}
	}
	return t.poll(ctx, answerTypes[request], wholeAnswer, m.Body.Content.(*ErrorMsgContent).StatusInfo.StatusString)
}

// certResponse returns the one response of an answer, checked for its certReqId.
func certResponse(answer *PKIMessage) (CertResponse, error) {
	response, err := checkSingleResponse(answer)
	if err != nil {
		return CertResponse{}, err
	}
	return response, checkCertReqID(response.CertReqID)
}

// poll asks for the answer until it comes, or the time is up, in which the CA's thinking before
// each pollRep counts as much as the waits between them.
func (t *transaction) poll(ctx context.Context, awaited []BodyType, id int64, reason PKIFreeText) (*PKIMessage, error) {
	t.awaitedNonce = t.lastNonce
	until := time.Now().Add(t.c.cfg.MaxPollWait - t.c.cfg.Now().Sub(t.pending.Since))
	for {
		answer, err := t.exchange(ctx, PKIBody{BodyPollReq, PollReqContent{id}})
		if err != nil {
			return nil, err
		}
		replies, ok := answer.Body.Content.(PollRepContent)
		if !ok {
			return answer, checkPolledType(answer, awaited)
		}
		reply, err := checkPollRep(replies, id)
		if err != nil {
			return nil, err
		}
		if t.pending.Waiting { // the next pollReq names the nonce of this answer
			if err := t.save(); err != nil {
				return nil, err
			}
		}
		if len(reply.Reason) > 0 {
			reason = reply.Reason
		}
		wait, ok := pollWait(ctx, reply.CheckAfter, until)
		if !ok {
			return nil, &StatusError{Status: StatusWaiting, Authenticated: true,
				Text: fmt.Sprintf("%s (asked to check again after %d s)", t.c.cfg.conceal(reason),
					reply.CheckAfter)}
		}
		t.log.Debug("CMP server asks to wait", "check_after", wait)
		if err := sleep(ctx, wait); err != nil {
			return nil, &TransportError{Timeout: isTimeout(err), Err: fmt.Errorf("waiting for the CA: %w", err)}
		}
	}
}

// checkPolledType: what polling brings at last is what answers the request (RFC 9483, 4.4).
func checkPolledType(answer *PKIMessage, awaited []BodyType) error {
	if slices.Contains(awaited, answer.Body.Type) {
		return nil
	}
	return &CheckError{Check: "body type", Got: answer.Body.Type.String(), Want: awaited[0].String()}
}

// checkPollRep: one reply, about our request, with a time
// that is not in the past (RFC 9810, 5.3.22).
func checkPollRep(replies PollRepContent, id int64) (PollRep, error) {
	if len(replies) != 1 {
		return PollRep{}, &CheckError{Check: "pollRep",
			Got: fmt.Sprintf("%d replies", len(replies)), Want: "exactly one"}
	}
	zero := id == wholeAnswer && replies[0].CertReqID == 0 // as some servers count, and there is nothing else to mean
	if replies[0].CertReqID != id && !zero {
		return PollRep{}, &CheckError{Check: "certReqId", Got: fmt.Sprint(replies[0].CertReqID), Want: fmt.Sprint(id)}
	}
	if replies[0].CheckAfter < 0 {
		return PollRep{}, &CheckError{Check: "checkAfter", Got: fmt.Sprint(replies[0].CheckAfter),
			Want: "0 seconds or more"}
	}
	return replies[0], nil
}

// pollWait returns how long to wait, and false when that would be longer than is allowed: then
// failing now is better than failing later.
func pollWait(ctx context.Context, checkAfter int64, until time.Time) (time.Duration, bool) {
	left := time.Until(until)
	if deadline, ok := ctx.Deadline(); ok {
		left = min(left, time.Until(deadline))
	}
	if checkAfter > int64(left/time.Second) {
		return 0, false
	}
	wait := max(time.Duration(checkAfter)*time.Second, minPollWait)
	return wait, wait <= left
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
