package client

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/internal/pki"
)

// maxToken bounds a token, in bytes; a CertService takes no larger one.
const maxToken = 16 << 10

// TokenError is a token file that cannot be used. No request is made then.
type TokenError struct {
	Err error // names TOKEN_PATH, and what to try
	// Permanent is set where another try cannot help. A file that is missing or empty may be about
	// to be replaced.
	Permanent bool
}

func (e *TokenError) Error() string { return e.Err.Error() }

// Unwrap gives the reason.
func (e *TokenError) Unwrap() error { return e.Err }

// readToken reads a bearer token (RFC 6750, section 2.1) from a file, without the newline at its
// end. Its error is a *TokenError, which holds nothing of the content.
func readToken(path string) (string, error) {
	data, _, err := files.Read(path, maxToken)
	text, _ := files.Text(data)
	token := strings.TrimRight(string(text), "\r\n")
	problem := ""
	switch {
	case err != nil:
		return "", &TokenError{fmt.Errorf("TOKEN_PATH %q %w", path, files.Explain(path, files.Reason(err))),
			!errors.Is(err, fs.ErrNotExist)}
	case len(data) > maxToken:
		problem = fmt.Sprintf("has more than %d bytes", maxToken)
	case token == "":
		problem = "is empty"
	case strings.ContainsAny(token, "\r\n"):
		problem = "has more than one line"
	case strings.ContainsFunc(token, notOfToken):
		problem = "has characters that are in no token"
	default:
		return token, nil
	}
	return "", &TokenError{fmt.Errorf("TOKEN_PATH %q %s, want one service account token, as the kubelet projects it",
		path, problem), token != ""}
}

func notOfToken(r rune) bool {
	return (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && !strings.ContainsRune("-._~+/=", r)
}

// Token is what is shown of a service account token. Its signature is not looked at.
type Token struct {
	Issuer, Subject string
	Audience        []string
	// What it is bound to, as kubernetes.io has it; empty where it does not say.
	Namespace, ServiceAccount, Pod string
	// Zero where it does not say.
	IssuedAt, NotBefore, Expires time.Time
}

// parseToken reads the claims of a JSON Web Token (RFC 7519). Its error is a sentence's rest after
// the name of the token's place, and holds nothing of the token.
func parseToken(token string) (Token, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return Token{}, fmt.Errorf("is not a JSON Web Token: it has %d parts between dots, want 3", len(parts))
	}
	var claims struct {
		Issuer    string          `json:"iss"`
		Subject   string          `json:"sub"`
		Audience  json.RawMessage `json:"aud"`
		IssuedAt  float64         `json:"iat"`
		NotBefore float64         `json:"nbf"`
		Expires   float64         `json:"exp"`
		Of        struct {
			Namespace      string
			ServiceAccount struct{ Name string }
			Pod            struct{ Name string }
		} `json:"kubernetes.io"`
	}
	data, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(data, &claims) != nil {
		return Token{}, errors.New("is not a JSON Web Token: its second part is not JSON with claims in base64url")
	}
	t := Token{Issuer: claims.Issuer, Subject: claims.Subject, Namespace: claims.Of.Namespace,
		ServiceAccount: claims.Of.ServiceAccount.Name, Pod: claims.Of.Pod.Name, IssuedAt: moment(claims.IssuedAt),
		NotBefore: moment(claims.NotBefore), Expires: moment(claims.Expires)}
	if json.Unmarshal(claims.Audience, &t.Audience) != nil { // one may stand without brackets
		var one string
		if json.Unmarshal(claims.Audience, &one) == nil {
			t.Audience = []string{one}
		}
	}
	return t, nil
}

// Begins is from when the token is valid; zero where it does not say.
func (t Token) Begins() time.Time {
	if t.NotBefore.After(t.IssuedAt) {
		return t.NotBefore
	}
	return t.IssuedAt
}

// clockLeeway is by how much a CertService allows clocks to differ.
const clockLeeway = time.Minute

// Problem says why a CertService has to refuse the token now, as far as that is known here; empty
// for nothing.
func (t Token) Problem(now time.Time) string {
	switch {
	case t.Expires.IsZero():
		return "the token does not say when it expires"
	case now.After(t.Expires.Add(clockLeeway)):
		return "the token expired at " + pki.Stamp(t.Expires)
	case now.Add(clockLeeway).Before(t.Begins()):
		return "the token is valid from " + pki.Stamp(t.Begins()) + ", and it is " + pki.Stamp(now) + " here"
	}
	return ""
}

// LoadToken reads the claims of the token in a file. Its errors name TOKEN_PATH.
func LoadToken(path string) (Token, error) {
	text, err := readToken(path)
	if err != nil {
		return Token{}, err
	}
	t, err := parseToken(text)
	if err != nil {
		err = fmt.Errorf("TOKEN_PATH %q %w", path, err)
	}
	return t, err
}

// moment is a NumericDate (RFC 7519, section 2).
func moment(seconds float64) time.Time {
	if seconds <= 0 || seconds > 1<<40 {
		return time.Time{}
	}
	return time.Unix(int64(seconds), 0)
}

// tokenAdvice is what to do about a token that a CertService refuses for a reason, or for none that
// it says. Texts in angle brackets are replaced.
var tokenAdvice = map[string]string{
	"": "check that it takes tokens (CLIENT_CREDENTIALS=token or any at the CertService), and where KEYSTORE_PATH is " +
		"set, that it trusts the CA of that certificate",
	"malformed": "the file of TOKEN_PATH holds no JSON Web Token: project a service account token, and check the path",
	"algorithm": "the token is signed by an algorithm that the CertService does not accept: check TOKEN_PATH",
	"key": "the CertService has no key with the token's key ID: its keys are of another cluster, or older than the " +
		"token: check TOKEN_ISSUER and TOKEN_JWKS_PATH of the CertService",
	"signature": "the key that the CertService has for the token did not sign it: check TOKEN_JWKS_PATH of the " +
		"CertService, which may be of another cluster",
	"issuer": "the token is of issuer <iss>, want TOKEN_ISSUER of the CertService: one of them is of another cluster",
	"audience": "the token is for audience <aud>, want TOKEN_AUDIENCE of the CertService: set audience in the " +
		"projected volume",
	"expired": "the token expired at <exp>, and it is <now> here: check that the file is replaced, which the kubelet " +
		"does not do for a subPath, and the clocks of node and CertService",
	"not_yet_valid": "the token is valid from <nbf>, and it is <now> here: check the clocks of node and CertService",
	"lifetime": "the token is valid from <iat> to <exp>, which is longer than the CertService accepts: set " +
		"expirationSeconds in the projected volume, at most 24 h",
	"claims": "the token lacks claims that a service account's has: project one by the kubelet",
	"unbound": "the token is bound to no pod: project one by the kubelet, in place of one of a Secret or of kubectl " +
		"create token",
	"unavailable": "the CertService cannot read the keys of the issuer: see its log",
}

// passingReasons are the reasons that may be gone at the next try, which reads the file again.
const passingReasons = " key expired not_yet_valid unavailable "

// tokenReason is why a token is refused (RFC 6750, section 3), if it is a reason that is known here.
func tokenReason(resp *http.Response) string {
	for _, challenge := range resp.Header.Values("WWW-Authenticate") {
		_, text, _ := strings.Cut(challenge, `error_description="`)
		word, _, _ := strings.Cut(text, `"`)
		if _, known := tokenAdvice[word]; known {
			return word
		}
	}
	return ""
}

// adviceOn says what to do about a token that is refused.
func adviceOn(token, reason string, now time.Time) string {
	t, _ := parseToken(token)
	return strings.NewReplacer("<iss>", fmt.Sprintf("%q", t.Issuer), "<aud>", fmt.Sprintf("%q", t.Audience),
		"<iat>", stamp(t.IssuedAt), "<nbf>", stamp(t.NotBefore), "<exp>", stamp(t.Expires), "<now>", stamp(now)).
		Replace(tokenAdvice[reason])
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return "an unknown time"
	}
	return pki.Stamp(t)
}
