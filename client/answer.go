package client

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/certfetcher/certfetcher/internal/oneline"
)

const (
	maxBody    = 1 << 20  // of an answer with certificates
	maxErrBody = 64 << 10 // of an answer with an error; the rest is not read
)

// Answer is what CertService issued, each element one PEM certificate as received.
type Answer struct {
	CertificateChain    []string // the new certificate first
	TrustedCertificates []string

	asked *secretHeaders // a pointer, which fmt does not follow here: nothing prints the key with an Answer
}

// Certificates parses both lists. Its error is an *AnswerError.
func (a Answer) Certificates() (chain, trusted []*x509.Certificate, err error) {
	if chain, err = parseCertificates("certificateChain", a.CertificateChain); err != nil {
		return nil, nil, a.cleaned(err)
	}
	if trusted, err = parseCertificates("trustedCertificates", a.TrustedCertificates); err != nil {
		return nil, nil, a.cleaned(err)
	}
	return chain, trusted, nil
}

// Clean is a text about the answer without what in it repeats the headers of the request: certificates can hold
// any text, and some of it goes into errors.
func (a Answer) Clean(text string) string {
	if a.asked == nil {
		return text
	}
	return a.asked.redact(text)
}

func (a Answer) cleaned(err error) error {
	if a.asked == nil {
		return err
	}
	return a.asked.clean(err)
}

func parseCertificates(list string, texts []string) ([]*x509.Certificate, error) {
	certs := make([]*x509.Certificate, len(texts))
	for i, text := range texts {
		block, rest := pem.Decode([]byte(text))
		switch {
		case block == nil:
			return nil, &AnswerError{Reason: fmt.Sprintf("%s[%d] has no PEM block, want a certificate", list, i)}
		case block.Type != "CERTIFICATE":
			return nil, &AnswerError{Reason: fmt.Sprintf("%s[%d] has a PEM block %q, want \"CERTIFICATE\"", list, i, block.Type)}
		case len(bytes.TrimSpace(rest)) > 0:
			return nil, &AnswerError{Reason: fmt.Sprintf("%s[%d] has more than one PEM block, want one certificate", list, i)}
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, &AnswerError{Reason: fmt.Sprintf("%s[%d] has no readable certificate: %v", list, i, err)}
		}
		certs[i] = cert
	}
	return certs, nil
}

// readAnswer reads a whole response, whatever it is.
func (c *Client) readAnswer(resp *http.Response) (Answer, error) {
	switch code := resp.StatusCode; {
	case code == http.StatusOK:
		return readCertificates(resp)
	case code >= 300 && code < 400:
		location := oneline.Of(resp.Header.Get("Location"), 200)
		return Answer{}, &AnswerError{Reason: fmt.Sprintf("%d redirects to %q, and the request carries a private key that must not travel there: set REQUEST_URL to CertService itself", code, location)}
	case code >= 400 && code < 600:
		body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrBody)) // what came is enough for a text
		return Answer{}, &StatusError{
			StatusCode: code,
			Message:    errorMessage(resp.Header.Get("Content-Type"), body),
			Reason:     errorReason(body),
			RetryAfter: parseRetryAfter(resp.Header.Get("Retry-After"), c.now()),
			URL:        resp.Request.URL.String(), IdentityProblem: c.problem(),
		}
	default:
		return Answer{}, &AnswerError{Reason: fmt.Sprintf("it has status %d, want 200", code)}
	}
}

// readCertificates reads a 200. A missing Content-Type is tolerated (the body decides), another one than
// JSON is not: a captive portal's page is better named as what it is.
func readCertificates(resp *http.Response) (Answer, error) {
	if e := resp.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return Answer{}, &AnswerError{Reason: fmt.Sprintf("it has Content-Encoding %q, want none, as none was offered", e)}
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err != nil {
		return Answer{}, &bodyError{err}
	}
	if len(body) > maxBody {
		return Answer{}, &AnswerError{Reason: fmt.Sprintf("it has more than %d bytes, want at most those", maxBody)}
	}
	if len(body) == 0 {
		return Answer{}, &AnswerError{Reason: "it is empty, want JSON with certificates"}
	}
	contentType := resp.Header.Get("Content-Type")
	if contentType != "" && !isJSON(contentType) {
		return Answer{}, &AnswerError{Reason: fmt.Sprintf("want JSON with certificates, but it is %s", bodyNote(contentType, body))}
	}
	return parseAnswer(body)
}

// parseAnswer reads the JSON of a 200. Unknown fields are ignored: the API may grow.
func parseAnswer(body []byte) (Answer, error) {
	var doc struct {
		CertificateChain    []*string `json:"certificateChain"`
		TrustedCertificates []*string `json:"trustedCertificates"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return Answer{}, &AnswerError{Reason: "want JSON with certificates, but " + jsonProblem(err)}
	}
	chain, err := texts("certificateChain", doc.CertificateChain)
	if err != nil {
		return Answer{}, err
	}
	trusted, err := texts("trustedCertificates", doc.TrustedCertificates)
	if err != nil {
		return Answer{}, err
	}
	return Answer{CertificateChain: chain, TrustedCertificates: trusted}, nil
}

func texts(list string, elements []*string) ([]string, error) {
	if len(elements) == 0 {
		return nil, &AnswerError{Reason: list + " is missing or empty, want at least one certificate"}
	}
	all := make([]string, len(elements))
	for i, e := range elements {
		if e == nil || *e == "" {
			return nil, &AnswerError{Reason: fmt.Sprintf("%s[%d] is empty, want a PEM certificate", list, i)}
		}
		all[i] = *e
	}
	return all, nil
}

func isJSON(contentType string) bool {
	mediaType, _, err := mime.ParseMediaType(contentType)
	return err == nil && (mediaType == "application/json" || strings.HasSuffix(mediaType, "+json"))
}
