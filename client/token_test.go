package client

import (
	"bytes"
	"cmp"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// withToken is a server that has a client say who it is by the token in a file, and what it was shown.
func withToken(t *testing.T, answer http.HandlerFunc) (m *mutual, shown *[]string) {
	t.Helper()
	m, shown = newMutual(t), &[]string{}
	m.cfg.TokenPath = filepath.Join(t.TempDir(), "token")
	m.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*shown = append(*shown, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
		answer(w, r)
	})
	return m, shown
}

func write(t *testing.T, path, content string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
}

func TestToken_isReadAgainForEachTry(t *testing.T) {
	var m *mutual
	tokens := []string{fixture.Token(""), fixture.Token(""), fixture.Token("")}
	next := 0
	m, shown := withToken(t, func(w http.ResponseWriter, r *http.Request) {
		if next++; next < len(tokens) {
			write(t, m.cfg.TokenPath, tokens[next])
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		writing(string(shared("wire/answer-200.json")))(w, r)
	})
	write(t, m.cfg.TokenPath, tokens[0])
	m.cfg.Retry = &Retry{time.Millisecond, time.Millisecond, time.Minute}
	require.NoError(t, enroll(t, m.client()))
	assert.Equal(t, tokens, *shown)
}

func TestToken_thatIsMissingForAMoment_isTriedAgain(t *testing.T) {
	for _, content := range []string{"no file", ""} {
		m, shown := withToken(t, writing(string(shared("wire/answer-200.json"))))
		if content == "" {
			write(t, m.cfg.TokenPath, content)
		}
		token := fixture.Token("")
		var logged bytes.Buffer
		m.cfg.Retry = &Retry{time.Millisecond, time.Millisecond, time.Minute}
		m.cfg.Log = slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{
			ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
				if a.Key == "try" && a.Value.Int64() == 2 {
					write(t, m.cfg.TokenPath, token)
				}
				return a
			}}))
		require.NoError(t, enroll(t, m.client()))
		assert.Equal(t, []string{token}, *shown)
		assert.Contains(t, logged.String(), "TOKEN_PATH")
		assert.NotContains(t, logged.String(), token[:20])
	}
}

// carry has a Carrier post to the server's path.
func carry(t *testing.T, cfg Config, to string) (body string, response *http.Response, err error) {
	t.Helper()
	c := fixture.Must(NewCarrier(cfg))
	t.Cleanup(c.CloseIdleConnections)
	follow := &http.Client{Transport: c} // and follow what redirects there are
	response, err = follow.Post(cmp.Or(to, cfg.URL), "application/pkixcmp", strings.NewReader("x"))
	if err != nil {
		return "", nil, err
	}
	defer response.Body.Close()
	return string(fixture.Must(io.ReadAll(response.Body))), response, nil
}

func TestCarrier_token(t *testing.T) {
	token := fixture.Token("")
	var elsewhere []string
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		elsewhere = append(elsewhere, r.Header.Get("Authorization"))
	}))
	t.Cleanup(other.Close)
	for name, row := range map[string]struct {
		answer      http.HandlerFunc
		to          string // another server
		says, error string
		sent        int
	}{
		"goes to the server of the URL": {answer: writing("hello"), says: "hello", sent: 1},
		"goes to no other server":       {answer: writing(""), to: other.URL},
		"follows no redirect": {answer: func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
		}, sent: 1},
		"is hidden where the server repeats it": {answer: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", r.Header.Get("Authorization"))
			_, _ = io.WriteString(w, "so you are "+r.Header.Get("Authorization")+"?")
		}, says: "so you are Bearer " + strings.Repeat("*", len(token)) + "?", sent: 1},
		"is refused with a reason": {answer: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token", error_description="unbound"`)
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"errorMessage":"missing or not trusted: `+r.Header.Get("Authorization")+`"}`)
		}, error: "CertService answered 401 Unauthorized: missing or not trusted: Bearer [left out: part of the " +
			"request]: the token is bound to no pod", sent: 1},
		"is of one whom the policy does not allow that": {answer: func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"errorMessage":"Not allowed by the policy: key: want RSA-3072+"}`)
		}, error: "CertService answered 403 Forbidden: Not allowed by the policy: key: want RSA-3072+: have its " +
			"policy extended", sent: 1},
		"meets another server's words": {answer: func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, "<p>no</p>")
		}, says: "<p>no</p>", sent: 1},
	} {
		t.Run(name, func(t *testing.T) {
			m, shown := withToken(t, row.answer)
			write(t, m.cfg.TokenPath, token+"\n")
			elsewhere = nil
			body, response, err := carry(t, m.start().cfg, row.to)
			if row.error != "" {
				require.ErrorContains(t, err, row.error)
				assert.NotContains(t, err.Error(), token[len(token)-20:])
			} else {
				require.NoError(t, err)
				assert.Equal(t, row.says, body)
				assert.NotContains(t, response.Header.Get("Content-Type"), token)
			}
			want := []string{token}
			assert.Equal(t, want[:row.sent], append([]string{}, *shown...))
			for _, authorization := range elsewhere {
				assert.Empty(t, authorization)
			}
		})
	}
}

func TestCarrier_token_isReadForEachMessage(t *testing.T) {
	tokens := []string{fixture.Token(""), fixture.Token("")}
	m, shown := withToken(t, writing(""))
	c := fixture.Must(NewCarrier(m.start().cfg))
	t.Cleanup(c.CloseIdleConnections)
	message := fixture.Must(http.NewRequestWithContext(t.Context(), http.MethodPost, m.cfg.URL, nil))
	for _, token := range tokens {
		write(t, m.cfg.TokenPath, token)
		response, err := c.RoundTrip(message)
		require.NoError(t, err)
		_ = response.Body.Close()
	}
	assert.Equal(t, tokens, *shown)
	require.NoError(t, os.Remove(m.cfg.TokenPath))
	_, err := c.RoundTrip(message)
	require.ErrorContains(t, err, "TOKEN_PATH")
	assert.Len(t, *shown, len(tokens), "without a token there is no message")
	assert.EqualValues(t, 1, m.connections.Load())
}

func TestToken_isForVerifiedServersOnly(t *testing.T) {
	m := newMutual(t)
	m.cfg.TokenPath = "token"
	m.cfg.URL = "http://certservice/.well-known/cmp/p/RA"
	_, err := NewCarrier(m.cfg)
	require.ErrorContains(t, err, "a token goes to a verified server only")
	m.cfg.URL = urlOf("certservice")
	m.cfg.TLS.InsecureSkipVerify = true
	_, err = New(m.cfg)
	require.ErrorContains(t, err, "a token goes to a verified server only")
}

func FuzzParseToken(f *testing.F) {
	f.Add(fixture.Token(""))
	f.Add(fixture.Token(`{"aud": "one", "exp": null, "iat": -1e300, "kubernetes.io": null}`))
	f.Add("e30.e30.e30")
	f.Add("..")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := parseToken(text)
		if err != nil {
			assert.Equal(t, Token{}, token)
			return
		}
		for reason := range tokenAdvice { // whatever the claims are
			assert.NotEmpty(t, adviceOn(text, reason, time.Now()))
		}
	})
}
