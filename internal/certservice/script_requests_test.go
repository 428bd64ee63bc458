package certservice

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/pki"
)

// request asks for a certificate with a new key and the names.
func (s *script) request(command, names string) string {
	if names == "" {
		names = "CN=app app.example"
	}
	names, wrong := strings.CutSuffix(names, " with the new key as OLD_PK")
	template := &x509.CertificateRequest{}
	for name := range strings.FieldsSeq(names) {
		if cn, ok := strings.CutPrefix(name, "CN="); ok {
			template.Subject.CommonName = cn
		} else if strings.Contains(name, "@") {
			template.EmailAddresses = append(template.EmailAddresses, name)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	s.sent()
	s.key = newKey(s.t)
	der := must(x509.CreateCertificateRequest(rand.Reader, template, s.key))
	s.csr = der
	header, path := headerOf(s.t, der, s.key), enrollPath
	if command == "update" {
		path = updatePath
		header["Old_cert"] = []string{b64([]byte(strings.Join(s.old.CertificateChain, "")))}
		header["Old_pk"] = []string{headerValue("PRIVATE KEY", pkcs8(s.t, s.oldKey))}
		if wrong {
			header["Old_pk"] = header["Pk"]
		}
	}
	r := s.api.get(path, header)
	text := fmt.Sprintf("sent %s\n%d ", s.sent(), r.StatusCode)
	if r.StatusCode == http.StatusOK {
		s.old, s.oldKey = r.issued(), s.key
		s.oldCert = parseCert(s.t, []byte(s.old.CertificateChain[0]))
		assert.True(s.t, pki.SameKey(s.oldCert.PublicKey, s.key.Public()))
		text += dnsOf(s.t, s.old.CertificateChain) + "; trusted " + dnsOf(s.t, s.old.TrustedCertificates)
	} else {
		text += r.text
	}
	text += "\n"
	if wait := r.Header.Get("Retry-After"); wait != "" {
		text += "Retry-After: " + wait + "\n"
	}
	if reason, ok := s.api.audit()["error"]; ok && r.StatusCode != http.StatusOK {
		text += fmt.Sprintf("audit %s\n", reason)
	}
	text += s.warnings()
	assert.NotContains(s.t, text, "very-secret")
	return text
}

// sent are the messages that the CA got since the last call, with what authenticates them.
func (s *script) sent() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	transactions := map[string]bool{}
	for _, m := range s.received {
		by := "?"
		if _, err := cmp.NewMACKeys([]byte("very-secret-iak")).Verify(m); err == nil {
			by = "secret"
		} else if s.oldKey != nil && cmp.VerifySignature(m, s.oldKey.Public()) == nil &&
			bytes.Equal(m.ExtraCerts[0], s.oldCert.Raw) && len(m.ExtraCerts) == 2 {
			by = "old key"
		}
		all = append(all, fmt.Sprintf("%s (%s)", m.Body.Type, by))
		transactions[string(m.Header.TransactionID)] = true
	}
	s.last, s.received = s.received, nil
	text := strings.Join(all, ", ")
	if len(all) > 1 {
		text += fmt.Sprintf(" in %d transactions", len(transactions))
	}
	return text
}

func dnsOf(t *testing.T, texts []string) string {
	var names []string
	for _, text := range texts {
		names = append(names, parseCert(t, []byte(text)).Subject.CommonName)
	}
	return strings.Join(names, ", ")
}

// ask sends a request to a path, with what the words after it say.
func (s *script) ask(method, rest string) string {
	words := strings.Fields(rest)
	if method == "ops" {
		text := ""
		for _, method := range words[1:] {
			w := httptest.NewRecorder()
			s.api.handler.Ops().ServeHTTP(w, httptest.NewRequest(method, words[0], nil))
			text += fmt.Sprintf("%s %d ", method, w.Code)
		}
		return text + "\n"
	}
	r := s.send(method, words[0], words[1:])
	if r.Response == nil {
		return ""
	}
	text := s.answer(r)
	if allow := r.Header.Get("Allow"); allow != "" {
		text += "\nAllow: " + allow
	}
	if r.StatusCode == http.StatusServiceUnavailable {
		seconds := number[int](r.Header.Get("Retry-After"))
		text += fmt.Sprintf("\nRetry-After: %t", 1 <= seconds && seconds <= 5)
	}
	line := s.api.audit()
	text += "\naudit"
	for _, name := range []string{"level", "outcome", "operation", "ca", "doctor", "error"} {
		if value, ok := line[name]; ok {
			text += fmt.Sprintf(" %s=%v", name, value)
		}
	}
	for _, line := range s.api.lines("panic while serving a request") {
		text += fmt.Sprintf("\n%s %s", line["msg"], line["panic"])
		assert.Contains(s.t, line["stack"], "script_test.go")
	}
	s.noSecrets(r.Request.Header)
	s.sent()
	return strings.ReplaceAll(text, s.path, "FILE") + "\n" + s.warnings()
}

// send sends a request; there is no answer to one that is sent meanwhile.
func (s *script) send(method, path string, words []string) response {
	client, header, body := s.api.client, http.Header{}, ""
	for _, word := range words {
		name, value, _ := strings.Cut(word, ":")
		switch size, err := strconv.Atoi(value); {
		case word == "meanwhile":
		case word == "body":
			body = strings.Repeat("x", 1<<20)
		case word == "rr":
			body = string(unprotected(cmp.PKIBody{Type: cmp.BodyRR, Content: cmp.RevReqContent{{}}}))
		case name == "client":
			client = s.client(value)
		case name == "from": // an address; all of 127.0.0.0/8 is this host
			transport := client.Transport.(*http.Transport).Clone()
			transport.DialContext = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(value)}}).DialContext
			s.t.Cleanup(transport.CloseIdleConnections)
			client = &http.Client{Transport: transport}
		case name == "enrolment":
			maps.Copy(header, s.enrolment(value))
		case word == "golden", word == "golden:enroll":
			_, header = goldenRequest(s.t, map[string]string{"golden": "update"}[word]+value)
		case word == "twice":
			header.Add("CSR", header.Get("CSR"))
		case value == "issued": // last
			header.Set(name, b64([]byte(strings.Join(s.old.CertificateChain, ""))))
		case strings.HasPrefix(value, "@"):
			header.Set(name, b64(testFile(s.t, value[1:]+".pem")))
		case strings.HasPrefix(value, "="):
			header.Set(name, header.Get(value[1:]))
		case value == "cut":
			header.Set(name, header.Get(name)[:400])
		case name == "X-Filler" && err == nil:
			header.Set(name, strings.Repeat("x", size<<10))
		default:
			header.Set(name, strings.ReplaceAll(value, "_", " "))
		}
	}
	s.api.handler.reloads.every = 0
	if slices.Contains(words, "meanwhile") {
		s.begin(client, path, header)
		return response{}
	}
	r := s.api.do(client, method, path, header, body)
	s.documented(r)
	if strings.HasPrefix(r.text, `{"certificateChain"`) {
		s.old = r.issued()
	}
	if text, err := base64.StdEncoding.DecodeString(header.Get("CSR")); err == nil {
		if block, _ := pem.Decode(text); block != nil {
			s.csr = block.Bytes
		}
	}
	return r
}

func (s *script) answer(r response) string {
	text := fmt.Sprintf("%d %.300s", r.StatusCode, r.text)
	if r.StatusCode == http.StatusOK && len(r.text) > 300 {
		text = fmt.Sprint("200 and ", r.Header.Get("Content-Type"))
		if strings.Contains(r.text, `"trustedCertificates":[]`) {
			text += " without roots"
		}
	}
	for _, file := range must(filepath.Glob("../../test/testdata/wire/answer-*.json")) {
		var compact bytes.Buffer
		if json.Compact(&compact, must(os.ReadFile(file))) == nil && strings.TrimSpace(compact.String()) == r.text {
			text += " = " + filepath.Base(file)
		}
	}
	return text
}

// noSecrets looks for parts of headers in the log.
func (s *script) noSecrets(header http.Header) {
	for _, name := range []string{"CSR", "PK", "OLD_CERT", "OLD_PK"} {
		if value := header.Get(name); len(value) > 240 {
			assert.False(s.t, s.api.log.has(value[:60]) || s.api.log.has(value[200:240]), name)
		}
	}
	assert.False(s.t, s.api.log.has("PRIVATE KEY") || s.api.log.has("BEGIN"))
}

// begin sends a request, and returns when it waits for the CMP server or for a processor.
func (s *script) begin(client *http.Client, path string, header http.Header) {
	request := must(http.NewRequest(http.MethodGet, s.api.url+path, nil))
	request.Header = header
	waiting := func() int {
		cpu := s.api.handler.cfg.CPU
		cpu.mu.Lock()
		defer cpu.mu.Unlock()
		tickets := int(s.waiting.Load()) + s.api.handler.admission.WaitingFor("RA")
		for _, a := range cpu.account {
			tickets += len(a.waiting)
		}
		return tickets
	}
	before, status := waiting(), make(chan int, 1)
	s.later = append(s.later, status)
	go func() {
		r, err := client.Do(request)
		if assert.NoError(s.t, err) {
			r.Body.Close()
			status <- r.StatusCode
		}
	}()
	eventually(s.t, func() bool { return waiting() > before })
}

// ended are the statuses of the requests that began meanwhile.
func (s *script) ended() (text string) {
	for _, status := range s.later {
		text += fmt.Sprint(<-status, " ")
	}
	s.api.asked += len(s.later)
	s.later = nil
	return text + "\n"
}

// enrolment is a good one with a new EC key; or with one of another kind, or with more in the CSR.
func (s *script) enrolment(text string) http.Header {
	key, template, forged := newKey(s.t), appCSR(), false
	extend := func(id asn1.ObjectIdentifier, value []byte) {
		template.ExtraExtensions = append(template.ExtraExtensions, pkix.Extension{Id: id, Value: value})
	}
	for _, word := range strings.Split(text, ",") {
		name, value, _ := strings.Cut(word, "=")
		switch name {
		case "RSA":
			key = rsaKey(s.t, number[int](value))
		case "Ed25519":
			key = edKey(s.t)
		case "CA":
			extend(asn1.ObjectIdentifier{2, 5, 29, 19}, []byte{0x30, 3, 1, 1, 0xff})
		case "usage":
			extend(oidKeyUsage, keyUsageValue(strings.Split(value, "+")))
		case "purpose": // object identifiers
			var ids []asn1.ObjectIdentifier
			for text := range strings.SplitSeq(value, "+") {
				var id asn1.ObjectIdentifier
				for arc := range strings.SplitSeq(text, ".") {
					id = append(id, number[int](arc))
				}
				ids = append(ids, id)
			}
			extend(asn1.ObjectIdentifier{2, 5, 29, 37}, must(asn1.Marshal(ids)))
		case "unreadable-usage":
			extend(oidKeyUsage, []byte{5, 0})
		case "unreadable-purpose":
			extend(asn1.ObjectIdentifier{2, 5, 29, 37}, []byte{5, 0})
		case "forged":
			forged = true
		}
	}
	der := must(x509.CreateCertificateRequest(rand.Reader, template, key))
	if forged {
		der[len(der)-1] ^= 1
	}
	return headerOf(s.t, der, key)
}

// client shows a certificate that is like that of the trusted client, but for one thing.
func (s *script) client(kind string) *http.Client {
	ca := *s.api.tlsCA
	ca.Change = map[string]func(leaf *x509.Certificate){
		"for-servers":       func(leaf *x509.Certificate) { leaf.ExtKeyUsage = leaf.ExtKeyUsage[1:] },
		"expired":           func(leaf *x509.Certificate) { leaf.NotAfter = time.Now().Add(-time.Second) },
		"signed-with-SHA-1": func(leaf *x509.Certificate) { leaf.SignatureAlgorithm = x509.ECDSAWithSHA1 },
	}[kind]
	own, other := identity(s.t, &ca), identity(s.t, newCA(s.t, "Stranger"))
	switch kind {
	case "none":
		return s.api.clientWith()
	case "untrusted":
		own = other
	case "untrusted-beside-a-trusted-one":
		other.Certificate = append(other.Certificate[:1:1], own.Certificate...)
		own = other
	case "without-its-intermediate":
		own.Certificate = own.Certificate[:1]
	}
	for chain, _ := strconv.Atoi(kind); len(own.Certificate) < chain; {
		own.Certificate = append(own.Certificate, ca.Issuing.Raw)
	}
	return s.api.clientWith(own)
}
