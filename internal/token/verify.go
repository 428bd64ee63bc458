package token

import (
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/certfetcher/certfetcher/internal/pki"
)

const (
	// MaxBytes is the size of the largest token that is looked at.
	MaxBytes  = 16 << 10
	maxHeader = 4 << 10
)

// algorithms are those that any key can have. None of them uses a secret that we would have too.
var algorithms = []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.ES256, jose.ES384,
	jose.EdDSA}

// parts are those of a compact JWS (RFC 7515, 7.1).
type parts struct {
	algorithm jose.SignatureAlgorithm
	keyID     string // "": none
	payload   []byte
}

// strict refuses what encodes the same bytes in another way.
var strict = base64.RawURLEncoding.Strict()

// split reads a token's header. What it says about keys elsewhere (jku, x5u) and within (jwk, x5c)
// never counts.
func split(token string) (parts, *Error) {
	malformed := func(format string, args ...any) (parts, *Error) {
		return parts{}, refuse(ReasonMalformed, format, args...)
	}
	if len(token) > MaxBytes {
		return malformed("has %d bytes, want at most %d", len(token), MaxBytes)
	}
	if n := strings.Count(token, "."); n != 2 {
		return malformed("has %d dots, want the 2 of a compact JWS: header.payload.signature", n)
	}
	var decoded [3][]byte
	for i, part := range strings.Split(token, ".") {
		var err error
		// The decoder passes over line breaks.
		if decoded[i], err = strict.DecodeString(part); err != nil || strings.ContainsAny(part, "\r\n") {
			return malformed("is not Base64url in part %d of 3", i+1)
		}
	}
	if len(decoded[0]) > maxHeader {
		return malformed("has a header of %d bytes, want at most %d", len(decoded[0]), maxHeader)
	}
	header, err := readObject(decoded[0], maxClaims)
	if err != nil {
		return malformed("has a header that %s", err)
	}
	for _, name := range []string{"crit", "b64"} { // b64 says that what is signed is not what is here
		if _, present := header[name]; present {
			return malformed("has %s in its header, which no token of Kubernetes has", name)
		}
	}
	p := parts{payload: decoded[1]}
	algorithm, ok := header["alg"].(string)
	if !ok || algorithm == "" {
		return malformed("has no alg in its header, want a text")
	}
	p.algorithm = jose.SignatureAlgorithm(algorithm)
	if value, present := header["kid"]; present {
		if p.keyID, ok = value.(string); !ok || p.keyID == "" {
			return malformed("has a kid in its header that names nothing, want a text")
		}
	}
	return p, nil
}

// Verify returns the claims of a token that is valid now. Errors are of type *Error. The same token
// costs little after the first time. What is cheap to find out comes first, so that a token which
// is not ours costs little as well; no token passes without its signature.
func (v *Verifier) Verify(token string) (Claims, error) {
	c, refused := v.verify(token, v.settings.Now())
	if refused != nil {
		return Claims{}, refused
	}
	return c, nil
}

func (v *Verifier) verify(token string, now time.Time) (Claims, *Error) {
	if len(token) > MaxBytes {
		_, refused := split(token)
		return Claims{}, refused
	}
	set := v.keys.Load()
	digest := sha256.Sum256([]byte(token))
	if c, ok := set.recall(digest); ok {
		return c, checkTimes(c, now)
	}
	p, refused := split(token)
	if refused == nil && !slices.Contains(algorithms, p.algorithm) {
		refused = refuse(ReasonAlgorithm, "has alg %s, want one of RS256, RS384, RS512, PS256, ES256, ES384, EdDSA",
			shorten(string(p.algorithm)))
	}
	if refused != nil {
		return Claims{}, refused
	}
	c, refused := v.judge(p.payload, now)
	if refused != nil {
		return Claims{}, refused
	}
	key, refused := v.find(set, p, c, now)
	if refused != nil {
		return Claims{}, refused
	}
	signed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{p.algorithm})
	if err != nil {
		return Claims{}, refuse(ReasonMalformed, "has a header with a member of the wrong form")
	}
	if _, err := signed.Verify(key.public); err != nil {
		return Claims{}, refuse(ReasonSignature, "has a signature that does not fit: it was not made by %s",
			key.description())
	}
	set.remember(digest, c, now)
	return c, nil
}

// judge reads the claims and judges all of them.
func (v *Verifier) judge(data []byte, now time.Time) (Claims, *Error) {
	p, refused := readPayload(data)
	if refused != nil {
		return Claims{}, refused
	}
	var c Claims
	if c.Issuer = p.issuer(); p.err == nil && c.Issuer != v.settings.Issuer {
		return c, refuse(ReasonIssuer, "is issued by %s, want %q: it is of another cluster, or TOKEN_ISSUER is wrong",
			shorten(c.Issuer), v.settings.Issuer)
	}
	c.Issuer = v.settings.Issuer // one text for all that are remembered
	audiences := p.audiences()
	if p.err == nil && !slices.Contains(audiences, v.settings.Audience) {
		return c, refuse(ReasonAudience, "is for the audience [%s], want %q: set audience in the projected volume",
			listed(audiences), v.settings.Audience)
	}
	p.times(&c)
	if p.err != nil {
		return c, p.err
	}
	if refused := checkTimes(c, now); refused != nil {
		return c, refused
	}
	p.account(&c)
	if p.err != nil {
		return c, p.err
	}
	if c.Pod == "" && !v.settings.AllowUnbound {
		return c, refuse(ReasonUnbound, "is not bound to a pod, want one from a projected volume of a pod, or "+
			"TOKEN_ALLOW_UNBOUND=true")
	}
	return c, nil
}

func checkTimes(c Claims, now time.Time) *Error {
	const advice = "clocks of the cluster and of this machine must agree"
	switch lifetime := c.Expires.Sub(c.IssuedAt); {
	case lifetime < 0:
		return refuse(ReasonLifetime, "expires at %s, before it is issued at %s", pki.Stamp(c.Expires),
			pki.Stamp(c.IssuedAt))
	case lifetime > maxLifetime:
		return refuse(ReasonLifetime, "is valid from %s to %s, want at most 24 hours: set expirationSeconds and an "+
			"audience of its own in the projected volume", pki.Stamp(c.IssuedAt), pki.Stamp(c.Expires))
	case !now.Before(c.Expires.Add(leeway)):
		return refuse(ReasonExpired, "expired at %s, it is %s now: the client must read its file again for each "+
			"request, and %s", pki.Stamp(c.Expires), pki.Stamp(now), advice)
	case now.Before(c.NotBefore.Add(-leeway)):
		return refuse(ReasonNotYetValid, "is valid from %s (nbf), it is %s now: %s", pki.Stamp(c.NotBefore),
			pki.Stamp(now), advice)
	case now.Before(c.IssuedAt.Add(-leeway)):
		return refuse(ReasonNotYetValid, "is issued at %s (iat), it is %s now: %s", pki.Stamp(c.IssuedAt),
			pki.Stamp(now), advice)
	}
	return nil
}
