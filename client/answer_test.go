package client

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

func TestAnswer_Clean_leavesOutWhatTheRequestHad(t *testing.T) {
	key := goldenRequest(t, "enroll.request.json").Headers["PK"]
	answer, err := newMutual(t).client().Enroll(t.Context(), goldenSecrets())
	require.NoError(t, err)
	assert.Equal(t, "the subject [left out: part of the request]", answer.Clean("the subject CN="+key))
	assert.NotContains(t, fmt.Sprintf("%v %+v %#v", answer, answer, answer), "PRIVATE KEY")
	broken := answer.asked.clean(&ConnectionError{Err: fmt.Errorf("connecting: %w", x509.UnknownAuthorityError{}),
		Permanent: true})
	assert.EqualError(t, broken, "connecting: x509: certificate signed by unknown authority")
	assert.ErrorAs(t, broken, new(x509.UnknownAuthorityError))
	assert.EqualError(t, answer.asked.clean(&ConnectionError{Err: errors.New("the certificate of " + key)}),
		"the certificate of [left out: part of the request]")
}

func TestParseRetryAfter(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, row := range []struct {
		is, value string
		want      time.Duration
	}{
		{"nothing", "", 0},
		{"seconds", " 30 ", 30 * time.Second},
		{"zero", "0", 0},
		{"seconds past the bound", "100000", maxReported},
		{"seconds past int64", "99999999999999999999999", maxReported},
		{"negative seconds", "-5", 0},
		{"a date", "Sun, 01 Mar 2026 12:01:00 GMT", time.Minute},
		{"a date of the old kind", "Sunday, 01-Mar-26 12:01:00 GMT", time.Minute},
		{"a date in the past", "Sun, 01 Mar 2026 11:00:00 GMT", 0},
		{"a date past the bound", "Sun, 01 Mar 2099 12:00:00 GMT", maxReported},
		{"words", "soon", 0},
	} {
		t.Run(row.is, func(t *testing.T) { assert.Equal(t, row.want, parseRetryAfter(row.value, now)) })
	}
}

func FuzzParseRetryAfter(f *testing.F) {
	for _, seed := range []string{"", "1", "900", "901", "-1", "1.5",
		"Sun, 01 Mar 2026 12:01:00 GMT", "Sun Mar  1 12:01:00 2026", "٣"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		d := parseRetryAfter(value, time.Unix(1_700_000_000, 0))
		if d < 0 || d > maxReported {
			t.Fatalf("%q gives %s", value, d)
		}
	})
}

func FuzzParseAnswer(f *testing.F) {
	f.Add(shared("wire/answer-200.json"))
	f.Add(shared("wire/answer-404.json"))
	f.Add([]byte(`{"certificateChain":["a",null],"trustedCertificates":{}}`))
	f.Add([]byte(`[`))
	f.Fuzz(func(t *testing.T, body []byte) {
		answer, err := parseAnswer(body)
		if err != nil {
			return
		}
		if len(answer.CertificateChain) == 0 || len(answer.TrustedCertificates) == 0 {
			t.Fatal("an empty list was accepted")
		}
		again := fixture.Must(json.Marshal(map[string][]string{"certificateChain": answer.CertificateChain,
			"trustedCertificates": answer.TrustedCertificates}))
		back, err := parseAnswer(again)
		require.NoError(t, err)
		assert.Equal(t, answer, back)
		chain, trusted, err := answer.Certificates()
		if err == nil && (len(chain) < len(answer.CertificateChain) || len(trusted) < len(answer.TrustedCertificates)) {
			t.Fatal("certificates were lost")
		}
	})
}

func FuzzErrorMessage(f *testing.F) {
	f.Add("application/json", shared("wire/answer-404.json"))
	f.Add("text/html", []byte("<TITLE>\x1b[0m</title>"))
	f.Add("", []byte("\xff\xfe\u202e"))
	f.Add("application/json", []byte(`{"errorMessage":"`+goldenRequest(f, "enroll.request.json").Headers["PK"]+`"}`))
	r := goldenSecrets()
	secrets := secretHeaders{{"CSR", r.CSR}, {"PK", r.Key}}
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		text := secrets.foreign(errorMessage(contentType, body), maxMessage)
		if len([]rune(text)) > maxMessage+1 || strings.ContainsAny(text, "\n\r\x1b\u202e") {
			t.Fatalf("not bounded or not clean: %q", text)
		}
		if secrets.isEcho(text) {
			t.Fatalf("a piece of the key is left: %q", text)
		}
	})
}
