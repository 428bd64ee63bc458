package client

import (
	"compress/gzip"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestEnroll_error_statuses(t *testing.T) {
	for _, row := range []struct {
		status     int
		file, want string
	}{
		{400, "answer-400-csr.json", "CertService answered 400 Bad Request: Wrong certificate signing request (CSR) format"},
		{400, "answer-400-key.json", "CertService answered 400 Bad Request: Wrong key (PK) format"},
		{400, "answer-400-old-key.json", "CertService answered 400 Bad Request: Wrong old key (OLD_PK) format"},
		{400, "answer-400-certificate.json", "CertService answered 400 Bad Request: Wrong certificate format"},
		{401, "answer-401.json", "CertService answered 401 Unauthorized: Client certificate is missing or not trusted: check that CertService trusts the CA of the client certificate in KEYSTORE_PATH"},
		{404, "answer-404.json", "CertService answered 404 Not Found: Certification authority not found for given CAName (GET ASKED): check CA_NAME and REQUEST_URL, for renewals UPDATE_URL"},
		{500, "answer-500-cmp-client.json", "CertService answered 500 Internal Server Error: Exception occurred during call to cmp client: connection refused"},
		{500, "answer-500-cmp-server.json", "CertService answered 500 Internal Server Error: CMPv2 server returned following error: rejection: badRequest: wrong subject"},
	} {
		t.Run(row.file, func(t *testing.T) {
			_, err := newMutual(t, answering(t, row.status, row.file), nil).client(t).Enroll(t.Context(), goldenSecrets(t))
			var status *StatusError
			require.ErrorAs(t, err, &status)
			assert.EqualError(t, err, strings.ReplaceAll(row.want, "ASKED", status.URL))
			assert.Regexp(t, "^https://127.0.0.1:[0-9]+/v1/certificate/RA$", status.URL)
			assert.Equal(t, row.status, status.StatusCode)
		})
	}
}

func TestEnroll_answers_of_somebody_else(t *testing.T) {
	key := goldenRequest(t, "enroll.request.json").Headers["PK"]
	keyPEM := string(golden(t, "pem/key.pem"))
	write := func(status int, contentType, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Content-Type"] = []string{contentType}
			if contentType == "" {
				w.Header()["Content-Type"] = nil
			}
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		}
	}
	for _, row := range []struct {
		is      string
		handler http.HandlerFunc
		want    string
	}{
		{"an HTML page of a proxy", write(502, "text/html", "<html><head><TITLE>502 Bad\nGateway</TITLE></head></html>"),
			`CertService answered 502 Bad Gateway: no errorMessage but text/html, 56 bytes, titled "502 Bad Gateway"`},
		{"an empty error", write(503, "", ""), `CertService answered 503 Service Unavailable: no errorMessage but an empty body`},
		{"another JSON error", write(500, "application/json", `{"status":500,"error":"boom"}`),
			`CertService answered 500 Internal Server Error: no errorMessage but application/json, 29 bytes, beginning "{\"status\":500,\"error\":\"boom\"}"`},
		{"an error text with control characters", write(400, "application/json", `{"errorMessage":"line\nbreak \u001b[31mred\u202e"}`),
			`CertService answered 400 Bad Request: line break [31mred`},
		{"an endless error text", write(400, "application/json", `{"errorMessage":"`+strings.Repeat("x ", 4000)+`"}`),
			`CertService answered 400 Bad Request: ` + strings.Repeat("x ", 500) + "…"},
		{"an error that repeats our key header", write(400, "application/json", `{"errorMessage":"bad header PK: `+key+`"}`),
			`CertService answered 400 Bad Request: bad header PK: [left out: part of the request]`},
		{"an error with a piece of our key", write(400, "application/json", `{"errorMessage":"bad key `+keyPEM[224:264]+` there"}`),
			`CertService answered 400 Bad Request: bad key [left out: part of the request] there`},
		{"a redirect with our key in it", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://elsewhere.test/?pk="+key[:100], http.StatusMovedPermanently)
		}, `invalid CertService response: 301 redirects to "https://elsewhere.test/?[left out: part of the request]", and the request carries a private key that must not travel there: set REQUEST_URL to CertService itself`},
		{"a header line that is our key", func(w http.ResponseWriter, r *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			require.NoError(t, err)
			defer conn.Close()
			fmt.Fprintf(conn, "HTTP/1.1 400 Bad Request\r\nDate: today\r\n%s\r\n\r\n", key)
		}, `invalid CertService response: it is not well-formed HTTP (net/http: HTTP/1.x transport connection broken: malformed MIME header: missing colon: "[left out: part of the request]")`},
		{"a Content-Encoding that is our key", func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Content-Encoding", key) },
			`invalid CertService response: it has Content-Encoding "[left out: part of the request]", want none, as none was offered`},
		{"nothing", write(200, "application/json", ""), `invalid CertService response: it is empty, want JSON with certificates`},
		{"another good status", write(204, "", ""), `invalid CertService response: it has status 204, want 200`},
		{"a login page", write(200, "text/html; charset=utf-8", "<title>Log in</title>"), `invalid CertService response: want JSON with certificates, but it is text/html; charset=utf-8, 21 bytes, titled "Log in"`},
		{"text that is no JSON", write(200, "application/json", "hello"), `invalid CertService response: want JSON with certificates, but it is not JSON: invalid character 'h' looking for beginning of value at byte 1`},
		{"JSON with more behind it", write(200, "application/json", `{"certificateChain":["a"],"trustedCertificates":["b"]}{}`), `invalid CertService response: want JSON with certificates, but it is not JSON: invalid character '{' after top-level value at byte 55`},
		{"a chain of another type", write(200, "application/json", `{"certificateChain":"a","trustedCertificates":["b"]}`), `invalid CertService response: want JSON with certificates, but its field "certificateChain" has a JSON string, want a list of texts (byte 23)`},
		{"no chain", write(200, "application/json", `{"certificateChain":[],"trustedCertificates":["b"]}`), `invalid CertService response: certificateChain is missing or empty, want at least one certificate`},
		{"no trusted certificates", write(200, "application/json", `{"certificateChain":["a"]}`), `invalid CertService response: trustedCertificates is missing or empty, want at least one certificate`},
		{"a hole in a list", write(200, "application/json", `{"certificateChain":["a",null],"trustedCertificates":["b"]}`), `invalid CertService response: certificateChain[1] is empty, want a PEM certificate`},
		{"too much", write(200, "application/json", strings.Repeat(" ", maxBody+1)), `invalid CertService response: it has more than 1048576 bytes, want at most those`},
		{"compressed data, which was not asked for", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			z.Write(make([]byte, 10<<20))
			z.Close()
		}, `invalid CertService response: it has Content-Encoding "gzip", want none, as none was offered`},
	} {
		t.Run(row.is, func(t *testing.T) {
			calls := 0
			m := newMutual(t, func(w http.ResponseWriter, r *http.Request) { calls++; row.handler(w, r) }, nil)
			_, err := m.client(t).Enroll(t.Context(), goldenSecrets(t))
			assert.EqualError(t, err, row.want)
			assert.Equal(t, 1, calls)
		})
	}
}

func TestStatusError_hints(t *testing.T) {
	assert.EqualError(t, &StatusError{StatusCode: 431, Message: "m"}, "CertService answered 431 Request Header Fields Too Large: m: raise the server's (or a proxy's) limit for headers, or take a smaller key")
	assert.EqualError(t, &StatusError{StatusCode: 403, Message: "m"}, "CertService answered 403 Forbidden: m: check that CertService trusts the CA of the client certificate in KEYSTORE_PATH")
}

// Gateways rewrite the Content-Type: the body decides.
func TestEnroll_answer_of_another_content_type(t *testing.T) {
	for _, contentType := range [][]string{nil, {"text/plain"}, {"text/html; charset=utf-8"}, {"application/octet-stream"}, {"nonsense;;"}} {
		m := newMutual(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Content-Type"] = contentType
			w.Write(golden(t, "wire/answer-200.json"))
		}, nil)
		answer, err := m.client(t).Enroll(t.Context(), goldenSecrets(t))
		require.NoError(t, err, contentType)
		assert.Len(t, answer.CertificateChain, 2)
	}
}

func TestAnswer_Certificates(t *testing.T) {
	answer, err := parseAnswer(golden(t, "wire/answer-200.json"))
	require.NoError(t, err)
	chain, trusted, err := answer.Certificates()
	require.NoError(t, err)
	assert.Equal(t, "app.example.org", chain[0].Subject.CommonName)
	assert.Equal(t, "CN=Example Issuing CA", chain[1].Subject.String())
	assert.Equal(t, "CN=Example Root CA", trusted[0].Subject.String())
	assert.Equal(t, "CN=Example Other Root CA", trusted[1].Subject.String())
}

func TestAnswer_Certificates_severalInOneElement_areReadInOrder(t *testing.T) {
	answer, err := parseAnswer(golden(t, "wire/answer-200.json"))
	require.NoError(t, err)
	chain, trusted, err := answer.Certificates()
	require.NoError(t, err)

	joined := Answer{
		CertificateChain:    []string{strings.Join(answer.CertificateChain, "subject=CN = text of openssl\n")},
		TrustedCertificates: []string{strings.Join(answer.TrustedCertificates, "")},
	}
	joinedChain, joinedTrusted, err := joined.Certificates()
	require.NoError(t, err)
	assert.Equal(t, chain, joinedChain)
	assert.Equal(t, trusted, joinedTrusted)
}

// What is only stored needs its DER and nothing else.
func TestAnswer_Certificates_keepsWhatCanVerifyNothing(t *testing.T) {
	for _, name := range []string{"negative-serial", "brainpool", "underscore", "ed448", "ecacc"} {
		text := golden(t, "certificates/"+name+".pem")
		block, _ := pem.Decode(text)
		_, trusted, err := Answer{TrustedCertificates: []string{string(golden(t, "pem/root-ca.pem")), string(text)}}.Certificates()
		require.NoError(t, err, name)
		require.Len(t, trusted, 2, name)
		assert.Equal(t, block.Bytes, trusted[1].Raw, name)
	}
}

func TestAnswer_Certificates_refuses(t *testing.T) {
	good := string(golden(t, "pem/root-ca.pem"))
	for _, row := range []struct{ is, text, want string }{
		{"text that is no PEM", "hello", "invalid CertService response: trustedCertificates[1] has no PEM block, want a certificate"},
		{"a key", string(golden(t, "pem/key.pem")), `invalid CertService response: trustedCertificates[1] has a PEM block "PRIVATE KEY", want "CERTIFICATE"`},
		{"a certificate and one that is cut short", good + good[:400], `invalid CertService response: trustedCertificates[1] has no readable certificate in the PEM block "CERTIFICATE" at line 11: it has no END line: the file was cut short, or lines are missing`},
		{"a certificate and its key", good + string(golden(t, "pem/key.pem")), `invalid CertService response: trustedCertificates[1] has a PEM block "PRIVATE KEY", want "CERTIFICATE"`},
		{"a block without a certificate", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})), `invalid CertService response: trustedCertificates[1] has no readable certificate in the PEM block "CERTIFICATE" at line 1: x509: malformed certificate`},
	} {
		t.Run(row.is, func(t *testing.T) {
			_, _, err := Answer{CertificateChain: []string{good}, TrustedCertificates: []string{good, row.text}}.Certificates()
			assert.EqualError(t, err, row.want)
		})
	}
	_, _, err := Answer{CertificateChain: []string{"x"}}.Certificates()
	assert.EqualError(t, err, "invalid CertService response: certificateChain[0] has no PEM block, want a certificate")
}

func TestAnswer_textsFromOurOwnHeaders_areLeftOut(t *testing.T) {
	key := goldenRequest(t, "enroll.request.json").Headers["PK"]
	body, err := json.Marshal(map[string][]string{
		"certificateChain":    {fmt.Sprintf("-----BEGIN %s-----\nAA==\n-----END %s-----\n", key, key)},
		"trustedCertificates": {string(golden(t, "pem/root-ca.pem"))},
	})
	require.NoError(t, err)
	m := newMutual(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Write(body)
	}, nil)
	answer, err := m.client(t).Enroll(t.Context(), goldenSecrets(t))
	require.NoError(t, err)
	_, _, err = answer.Certificates()
	assert.EqualError(t, err, `invalid CertService response: certificateChain[0] has no readable certificate in the PEM block "" at line 1: `+
		`its BEGIN line is damaged: want -----BEGIN, a label and five dashes on one line`)
	assert.Equal(t, "the subject [left out: part of the request]", answer.Clean("the subject CN="+key))

	assert.NotContains(t, fmt.Sprintf("%v %+v %#v", answer, answer, answer), "PRIVATE KEY")

	broken := answer.asked.clean(&ConnectionError{Err: fmt.Errorf("connecting: %w", x509.UnknownAuthorityError{}), Permanent: true})
	assert.EqualError(t, broken, "connecting: x509: certificate signed by unknown authority")
	assert.ErrorAs(t, broken, new(x509.UnknownAuthorityError))
	assert.EqualError(t, answer.asked.clean(&ConnectionError{Err: errors.New("the certificate of " + key)}), "the certificate of [left out: part of the request]")
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
	for _, seed := range []string{"", "1", "900", "901", "-1", "1.5", "Sun, 01 Mar 2026 12:01:00 GMT", "Sun Mar  1 12:01:00 2026", "٣"} {
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
	f.Add(golden(f, "wire/answer-200.json"))
	f.Add(golden(f, "wire/answer-404.json"))
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
		again, err := json.Marshal(map[string][]string{"certificateChain": answer.CertificateChain, "trustedCertificates": answer.TrustedCertificates})
		require.NoError(t, err)
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
	f.Add("application/json", golden(f, "wire/answer-404.json"))
	f.Add("text/html", []byte("<TITLE>\x1b[0m</title>"))
	f.Add("", []byte("\xff\xfe\u202e"))
	f.Add("application/json", []byte(`{"errorMessage":"`+goldenRequest(f, "enroll.request.json").Headers["PK"]+`"}`))
	r := goldenSecrets(f)
	secrets := secretHeaders{{"CSR", r.CSR}, {"PK", r.Key}}
	key := goldenRequest(f, "enroll.request.json").Headers["PK"]
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		text := secrets.foreign(errorMessage(contentType, body), maxMessage)
		if len([]rune(text)) > maxMessage+1 || strings.ContainsAny(text, "\n\r\x1b\u202e") {
			t.Fatalf("not bounded or not clean: %q", text)
		}
		if isEcho(text, []string{key}) {
			t.Fatalf("a piece of the key is left: %q", text)
		}
	})
}
