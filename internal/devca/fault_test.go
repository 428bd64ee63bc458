package devca_test

import (
	"bytes"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/devca"
	"github.com/certfetcher/certfetcher/test/fixture"
)

func TestParseFaults(t *testing.T) {
	for text, want := range map[string]devca.Faults{
		"":          {},
		" , ":       {},
		"waiting":   {Waiting: 1},
		"waiting:3": {Waiting: 3},
		"rejection": {Reject: true},
		"rejection:badAlg+badCertTemplate": {Reject: true,
			FailInfo: []cmp.FailureBit{cmp.FailBadAlg, cmp.FailBadCertTemplate}},
		"unprotected-error,wrong-nonce, wrong-key,expired,explicit-confirm": {Unprotected: true,
			WrongNonce: true, WrongKey: true, Expired: true, Explicit: true},
		"slow:2s,drop":          {Slow: 2 * time.Second, Drop: true},
		"drop:certConf,drop:ir": {DropBodies: []cmp.BodyType{cmp.BodyCertConf, cmp.BodyIR}},
	} {
		got, err := devca.ParseFaults(text)
		require.NoError(t, err, text)
		assert.Equal(t, want, got, text)
	}
}

func TestParseFaults_wrongWords_areAllReported(t *testing.T) {
	_, err := devca.ParseFaults("waiting:0,waiting:x,rejection:bad,expired:1,slow,slow:-1s,drop:it,explode:now")
	require.Error(t, err)
	checkText(t, err.Error())
}

// faulty makes a CA with the faults that a text names.
func faulty(text string) *devca.CA {
	faults := fixture.Must(devca.ParseFaults(text))
	return newCA(devca.Config{Faults: faults})
}

func TestFault_explicitConfirm_waitsForCertConf(t *testing.T) {
	ca := faulty("explicit-confirm")
	m := ir(t)
	m.Header.AddImplicitConfirm()

	answer := ask(t, ca, m)

	assert.False(t, answer.Header.ImplicitConfirm())
	assert.Equal(t, "pkiconf", outcome(ask(t, ca, confirming(answer, confirmation(t, answer)))))
	assert.Equal(t, uint64(1), ca.Stats().Confirmed)
}

func TestFault_waiting(t *testing.T) {
	for _, implicit := range []bool{false, true} {
		ca := faulty("waiting:2")
		m := ir(t)
		if implicit {
			m.Header.AddImplicitConfirm()
		}
		answer := ask(t, ca, m)
		assert.Equal(t, "ip waiting: this wait was ordered as a fault", outcome(answer))
		for range 2 {
			answer = ask(t, ca, polling(answer, 0))
			require.Equal(t, cmp.BodyPollRep, answer.Body.Type)
			reply := answer.Body.Content.(cmp.PollRepContent)[0]
			assert.Equal(t, [2]int64{0, 1}, [2]int64{reply.CertReqID, reply.CheckAfter})
		}
		assert.Zero(t, ca.Stats().Issued, "nothing is issued while the client waits")
		answer = ask(t, ca, polling(answer, 0))
		granted(t, answer)
		assert.Equal(t, implicit, answer.Header.ImplicitConfirm())
		if !implicit {
			assert.Equal(t, "pkiconf", outcome(ask(t, ca, confirming(answer, confirmation(t, answer)))))
		}
		assert.EqualValues(t, 2, ca.Stats().Polls)
	}
}

func TestFault_waiting_holdsPollsToTheirTransaction(t *testing.T) {
	ca := faulty("waiting")
	answer := ask(t, ca, ir(t))
	assert.Equal(t, "error rejection badRequest: certConf is not what the transaction waits for",
		outcome(ask(t, ca, confirming(answer))))
	assert.Equal(t, "error rejection badRequest: pollReq is for certReqIds [5], want 0",
		outcome(ask(t, ca, polling(answer, 5))))
	assert.Equal(t, "error rejection badRequest: pollReq is not what the transaction waits for",
		outcome(ask(t, ca, polling(answer, 0))), "the wrong poll has ended it")
	answer.Header.TransactionID = cmp.NewNonce()
	assert.Equal(t, "error rejection badRequest: pollReq is for a transaction that is not known",
		outcome(ask(t, ca, polling(answer, 0))))
}

func TestFault_rejection(t *testing.T) {
	ca := faulty("rejection:badCertTemplate")
	assert.Equal(t, "ip rejection badCertTemplate: this rejection was ordered as a fault", outcome(ask(t, ca, ir(t))))
	rr := message(cmp.BodyRR, cmp.RevReqContent{{}})
	assert.Equal(t, "rp rejection badCertTemplate: this rejection was ordered as a fault", outcome(ask(t, ca, rr)))
	assert.Equal(t, "ip rejection: this rejection was ordered as a fault",
		outcome(ask(t, faulty("rejection"), ir(t))))
}

func TestFault_unprotectedError(t *testing.T) {
	for _, response := range []devca.ResponseProtection{devca.RespondMAC, devca.RespondSignature} {
		ca := newCA(devca.Config{ResponseProtection: response, Faults: devca.Faults{Unprotected: true}})
		answer := ask(t, ca, ir(t))
		assert.Equal(t, "error rejection systemFailure: this error was ordered as a fault", outcome(answer))
		assert.Nil(t, answer.Protection)
		assert.Nil(t, answer.Header.ProtectionAlg)
	}
}

func TestFault_wrongNonce(t *testing.T) {
	m := withMAC(t, ir(t))
	answer := send(t, faulty("wrong-nonce"), m)
	granted(t, answer)
	assert.Len(t, answer.Header.RecipNonce, cmp.NonceSize)
	assert.NotEqual(t, m.Header.SenderNonce, answer.Header.RecipNonce)
	_, err := cmp.NewMACKeys([]byte(devca.DefaultSecret)).Verify(answer)
	assert.NoError(t, err)
}

func TestFault_wrongKey(t *testing.T) {
	ca := faulty("wrong-key")
	certificate := granted(t, ask(t, ca, ir(t)))
	assert.Equal(t, ca.Issuing().PublicKey, certificate.PublicKey)
}

func TestFault_expired(t *testing.T) {
	certificate := granted(t, ask(t, faulty("expired"), ir(t)))
	assert.Less(t, certificate.NotAfter, time.Now())
	assert.Less(t, certificate.NotBefore, certificate.NotAfter)
}

func TestFault_slow(t *testing.T) {
	ca := faulty("slow:2s")
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		require.Equal(t, http.StatusBadRequest, post(ca, "/", cmp.MediaType, nil).Code)
		assert.Equal(t, 2*time.Second, time.Since(begun))
	})
}

func TestFault_drop(t *testing.T) {
	ca, url := start(t, devca.Config{Faults: devca.Faults{Drop: true}})
	der := fixture.Must(withMAC(t, ir(t)).Marshal())
	_, err := http.Post(url, cmp.MediaType, bytes.NewReader(der))
	assert.ErrorIs(t, err, io.EOF)
	assert.Zero(t, ca.Stats().Requests)
}

func TestFault_drop_ofOneKind_losesTheAnswerOnly(t *testing.T) {
	ca, url := start(t, devca.Config{Faults: devca.Faults{DropBodies: []cmp.BodyType{cmp.BodyCertConf}}})
	answer := ask(t, ca, ir(t))
	der := fixture.Must(withMAC(t, confirming(answer, confirmation(t, answer))).Marshal())
	_, err := http.Post(url, cmp.MediaType, bytes.NewReader(der))
	assert.ErrorIs(t, err, io.EOF)
	assert.EqualValues(t, 1, ca.Stats().Confirmed)
}
