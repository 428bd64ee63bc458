package cmp

import (
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Answers that go on being sent hold no more memory than their server may have, however many there are. The next answer
// of an ordinary size is taken nevertheless, and everything is given back.
func TestAnswers_ofOneServer_shareABound(t *testing.T) {
	const transactions = 20
	p := newPKI(t)
	var done sync.WaitGroup
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", MediaType)
		_, _ = w.Write(make([]byte, MaxMessageSize-1000))
		_ = http.NewResponseController(w).Flush()
		<-release
	}))
	t.Cleanup(server.Close)
	bound := NewAnswers(DefaultAnswerBytes)
	c, _ := testClient(t, nil, func(cfg *Config) { cfg.URL, cfg.HTTPClient, cfg.Answers = server.URL, server.Client(), bound })
	errs := make(chan error, transactions)
	for range transactions {
		done.Go(func() {
			_, err := c.Initialize(t.Context(), Request{CSR: p.csr, Key: p.key})
			errs <- err
		})
	}
	// All but four, or more where two were refused at once, are refused while the answers go on; the others wait for the rest.
	for range transactions - DefaultAnswerBytes/MaxMessageSize {
		assert.ErrorContains(t, <-errs, "answer is larger than 65536 bytes, and other large answers of this server are under way")
	}
	whole := int64((MaxMessageSize - 1000 - freeAnswer) / answerStep * answerStep)
	assert.Eventually(t, func() bool { return DefaultAnswerBytes-bound.left.Load() >= whole }, 10*time.Second, time.Millisecond,
		"at least one large answer is held")

	ordinary, _ := testClient(t, &responder{t: t, testPKI: p}, func(cfg *Config) { cfg.Answers = bound })
	_, err := ordinary.Initialize(t.Context(), Request{CSR: p.csr, Key: p.key})
	require.NoError(t, err)

	close(release)
	done.Wait()
	assert.EqualValues(t, DefaultAnswerBytes, bound.left.Load())
}
