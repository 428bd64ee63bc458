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
	"github.com/certfetcher/certfetcher/test/golden"
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
	golden.File(t, "faults.txt", err.Error()+"\n")
}

func TestFault_slow(t *testing.T) {
	ca := newCA(devca.Config{Faults: devca.Faults{Slow: 2 * time.Second}})
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		require.Equal(t, http.StatusBadRequest, post(ca, "/", cmp.MediaType, nil).Code)
		assert.Equal(t, 2*time.Second, time.Since(begun))
	})
}

func TestFault_drop(t *testing.T) {
	ca, url := start(t, devca.Config{Faults: devca.Faults{Drop: true}})
	der := fixture.Must(protect(t, ir(t)).Marshal())
	_, err := http.Post(url, cmp.MediaType, bytes.NewReader(der))
	assert.ErrorIs(t, err, io.EOF)
	assert.Zero(t, ca.Stats().Requests)
}

func TestFault_drop_ofOneKind_losesTheAnswerOnly(t *testing.T) {
	ca, url := start(t, devca.Config{Faults: devca.Faults{DropBodies: []cmp.BodyType{cmp.BodyIR}}})
	der := fixture.Must(protect(t, ir(t)).Marshal())
	_, err := http.Post(url, cmp.MediaType, bytes.NewReader(der))
	assert.ErrorIs(t, err, io.EOF)
	assert.EqualValues(t, 1, ca.Stats().Issued)
}
