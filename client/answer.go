package client

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/internal/requestid"
)

const (
	maxBody    = 4 << 20  // of an answer with certificates: there is room for 1,000 of RSA-4096
	maxErrBody = 64 << 10 // of an answer with an error; the rest is not read
)

// Answer is what CertService issued, each element the PEM of one certificate, or of several in
// their order, as received.
type Answer struct {
	CertificateChain    []string // the new certificate first
	TrustedCertificates []string

	asked *secretHeaders // a pointer, which fmt does not follow here: nothing prints the key with an Answer
}

// Certificates parses both lists. Certificates that can verify nothing (pki.Unusable) are among
// them: what they are for decides whether that matters. Its error is an *AnswerError.
func (a Answer) Certificates() (chain, trusted []*x509.Certificate, err error) {
	if chain, err = parseCertificates("certificateChain", a.CertificateChain); err != nil {
		return nil, nil, a.clean(err)
	}
	if trusted, err = parseCertificates("trustedCertificates", a.TrustedCertificates); err != nil {
		return nil, nil, a.clean(err)
	}
	return chain, trusted, nil
}

// Clean is a text about the answer without what in it repeats the headers of the request:
// certificates can hold any text, and some of it goes into errors.
func (a Answer) Clean(text string) string {
	if a.asked == nil {
		return text
	}
	return a.asked.redact(text)
}

func (a Answer) clean(err error) error {
	if a.asked == nil {
		return err
	}
	return a.asked.clean(err)
}

func parseCertificates(list string, texts []string) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for i, text := range texts {
		found, reason := parseElement([]byte(text))
		if reason != "" {
			return nil, &AnswerError{Reason: fmt.Sprintf("%s[%d] %s", list, i, reason)}
		}
		certs = append(certs, found...)
	}
	return certs, nil
}

// parseElement reads the certificates of one element, or says what
// is wrong with it. Text around them, such as openssl writes, does
// no harm; what looks like another block is one that was cut short.
func parseElement(text []byte) (certs []*x509.Certificate, reason string) {
	blocks, err := pki.PEMBlocks(text)
	if err != nil {
		return nil, err.Error()
	}
	for _, block := range blocks {
		if block.Err == nil && !block.IsCertificate() {
			return nil, fmt.Sprintf("has a PEM block %q, want \"CERTIFICATE\"", pki.OneLine(block.Label, 64))
		}
		cert, err := block.Certificate()
		if err != nil {
			return nil, fmt.Sprintf("has no readable certificate in %v: %v", block, err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, "has no PEM block, want a certificate"
	}
	return certs, ""
}

// unreadRequest is the whole of what Go's HTTP server, on which CertService is built, answers with
// status 400 to a request that is cut short or is not HTTP. It has more words for what is wrong
// with a whole request, and CertService has others.
const unreadRequest = "400 Bad Request"

// readAnswer reads a whole response, whatever it is.
func (c *Client) readAnswer(resp *http.Response) (Answer, error) {
	switch code := resp.StatusCode; {
	case code == http.StatusOK:
		return readCertificates(resp)
	case code >= 300 && code < 400:
		location := pki.OneLine(resp.Header.Get("Location"), 200)
		return Answer{},
			&AnswerError{Reason: fmt.Sprintf(
				"%d redirects to %q, and the request carries a private key that must not travel "+
					"there: set REQUEST_URL to CertService itself", code, location)}
	case code >= 400 && code < 600:
		body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrBody)) // what came is enough for a text
		if code == http.StatusBadRequest && string(body) == unreadRequest {
			e := explanation{
				problem: "the request was cut short or changed on its way, says the server (400 Bad Request)",
				advice:  "check what is between us and CertService",
			}
			return Answer{}, &ConnectionError{
				Err:     fmt.Errorf("connecting to %s: %v", hostPort(resp.Request.URL), e),
				Problem: e.problem, Advice: e.advice,
			}
		}
		return Answer{}, c.statusError(resp, body)
	default:
		return Answer{}, &AnswerError{Reason: fmt.Sprintf("it has status %d, want 200", code)}
	}
}

// statusError is an answer that is an error.
func (c *Client) statusError(resp *http.Response, body []byte) *StatusError {
	e := &StatusError{
		StatusCode: resp.StatusCode,
		Message:    errorMessage(resp.Header.Get("Content-Type"), body),
		Reason:     errorReason(body),
		RetryAfter: parseRetryAfter(resp.Header.Get("Retry-After"), c.now()),
		RequestID:  requestid.Of(resp.Header),
		URL:        resp.Request.URL.String(), IdentityProblem: c.problem(),
	}
	token, sent := strings.CutPrefix(resp.Request.Header.Get(authorization), bearer)
	if sent && e.StatusCode == http.StatusUnauthorized {
		e.Reason = tokenReason(resp)
		e.TokenAdvice = adviceOn(token, e.Reason, c.now())
	}
	return e
}

// readCertificates reads a 200. The body decides: gateways change the Content-Type. Where the body
// is not JSON either, as a captive portal's page, it is named as what it says it is.
func readCertificates(resp *http.Response) (Answer, error) {
	if e := resp.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return Answer{},
			&AnswerError{Reason: fmt.Sprintf("it has Content-Encoding %q, want none, as none was offered", e)}
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
	if contentType != "" && !isJSON(contentType) && !json.Valid(body) {
		return Answer{},
			&AnswerError{Reason: fmt.Sprintf("want JSON with certificates, but it is %s", bodyNote(contentType, body))}
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

// jsonProblem words an error of encoding/json without the types of Go.
func jsonProblem(err error) string {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax) && syntax.Error() == "unexpected end of JSON input":
		return fmt.Sprintf("it is cut short: it ends after %d bytes in the middle of a value", syntax.Offset)
	case errors.As(err, &syntax):
		return fmt.Sprintf("it is not JSON: %v at byte %d", syntax, syntax.Offset)
	case errors.As(err, &kind) && kind.Field == "":
		return fmt.Sprintf("it is a JSON %s, want an object", kind.Value)
	case errors.As(err, &kind):
		return fmt.Sprintf("its field %q has a JSON %s, want a list of texts (byte %d)",
			kind.Field, kind.Value, kind.Offset)
	}
	return "it is not JSON: " + err.Error()
}
