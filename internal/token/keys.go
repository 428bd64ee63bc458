package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/certfetcher/certfetcher/internal/pki"
)

const (
	maxSetBytes  = 1 << 20 // of a JSON Web Key Set
	maxSetKeys   = 64
	maxSetValues = 8192
	minRSABits   = 2048

	// maxRemembered bounds the tokens that are remembered, each with about half a kilobyte.
	maxRemembered = 1 << 14
)

// keySet are an issuer's keys that can be used, and what was verified with them.
type keySet struct {
	keys []key

	mu       sync.Mutex
	verified map[[sha256.Size]byte]Claims // by the digest of the token
}

// key is a public key.
type key struct {
	id         string // "": it has none
	public     crypto.PublicKey
	algorithms []jose.SignatureAlgorithm // that its signatures may have
}

// description names it in messages.
func (k key) description() string {
	name, _ := pki.KeyName(k.public)
	if k.id == "" {
		return "the key " + name + " without kid"
	}
	return "the key " + name + " " + shorten(k.id)
}

// parseSet reads a JSON Web Key Set (RFC 7517, 5). A key that cannot be used is passed over with a
// warning; a set with none that can is an error.
func parseSet(data []byte) (*keySet, []string, error) {
	if len(data) > maxSetBytes {
		return nil, nil, fmt.Errorf("has more than %d bytes", maxSetBytes)
	}
	object, err := readObject(data, maxSetValues)
	if err != nil {
		return nil, nil, err
	}
	list, ok := object["keys"].([]any)
	switch {
	case !ok:
		return nil, nil, errors.New(`is not a JSON Web Key Set: it has no list "keys"`)
	case len(list) > maxSetKeys:
		return nil, nil, fmt.Errorf("has %d keys, want at most %d", len(list), maxSetKeys)
	}
	set := &keySet{verified: map[[sha256.Size]byte]Claims{}}
	var warnings []string
	for i, element := range list {
		k, err := parseKey(element)
		if err == nil {
			err = set.add(k)
		}
		if err != nil {
			warnings = append(warnings, fmt.Sprintf("keys[%d] %s", i, err))
		}
	}
	switch {
	case len(list) == 0:
		return nil, nil, errors.New("has no keys")
	case len(set.keys) == 0:
		return nil, nil, fmt.Errorf("has no key that can be used: %s", strings.Join(pki.FirstOf(warnings, 3), "; "))
	}
	return set, warnings, nil
}

// add takes a key, unless the set has another for the same tokens.
func (s *keySet) add(k key) error {
	for _, other := range s.keys {
		if other.id == k.id && k.id != "" && slices.Equal(other.algorithms, k.algorithms) &&
			!pki.SameKey(other.public, k.public) {
			return fmt.Errorf("has the kid %s of another key", shorten(k.id))
		}
	}
	if !slices.ContainsFunc(s.keys, func(other key) bool { return other.same(k) }) {
		s.keys = append(s.keys, k)
	}
	return nil
}

func (k key) same(other key) bool {
	return k.id == other.id && slices.Equal(k.algorithms, other.algorithms) && pki.SameKey(k.public, other.public)
}

// sameKeys tells whether two sets verify the same tokens.
func (s *keySet) sameKeys(other *keySet) bool {
	return s != nil && len(s.keys) == len(other.keys) && !slices.ContainsFunc(s.keys, func(k key) bool {
		return !slices.ContainsFunc(other.keys, k.same)
	})
}

// version identifies the keys, in whatever order: the hash of their thumbprints (RFC 7638) with
// their ids, in hexadecimal digits. That of no keys is empty.
func (s *keySet) version() string {
	if s == nil {
		return ""
	}
	var all []string
	for _, k := range s.keys {
		thumbprint, err := (&jose.JSONWebKey{Key: k.public}).Thumbprint(crypto.SHA256)
		if err != nil { // every key that is in use was written as JSON before
			panic(err)
		}
		all = append(all, fmt.Sprintf("%x %q %v", thumbprint, k.id, k.algorithms))
	}
	slices.Sort(all)
	return fmt.Sprintf("%x", sha256.Sum256([]byte(strings.Join(all, "\n"))))
}

// parseKey reads a JSON Web Key (RFC 7517, 4). Its certificates do not count.
func parseKey(element any) (key, error) {
	object, ok := element.(map[string]any)
	if !ok {
		return key{}, fmt.Errorf("is %s, want an object", kind(element))
	}
	texts := map[string]string{}
	for _, name := range []string{"kty", "crv", "x", "y", "n", "e", "kid", "alg", "use"} {
		value, present := object[name]
		if texts[name], ok = value.(string); present && !ok {
			return key{}, fmt.Errorf("has %s as %s, want a text", kind(value), name)
		}
	}
	for _, name := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "priv"} {
		if _, present := object[name]; present {
			return key{}, errors.New("is a private key, which is no secret any more: replace it at the issuer")
		}
	}
	if _, present := object["k"]; present || texts["kty"] == "oct" {
		return key{}, errors.New("is a symmetric key, want public keys")
	}
	if use := texts["use"]; use != "" && use != "sig" {
		return key{}, fmt.Errorf("is for the use %s, want sig", shorten(use))
	}
	if operations, present := object["key_ops"]; present {
		if list, ok := operations.([]any); !ok || !slices.Contains(list, any("verify")) {
			return key{}, errors.New("has key_ops without verify")
		}
	}
	k := key{id: texts["kid"]}
	var err error
	if k.public, err = parsePublic(texts); err != nil {
		return key{}, err
	}
	k.algorithms = algorithmsOf(k.public)
	if only := jose.SignatureAlgorithm(texts["alg"]); only != "" {
		if !slices.Contains(k.algorithms, only) {
			return key{}, fmt.Errorf("is for alg %s, want one of %s", shorten(texts["alg"]), join(k.algorithms))
		}
		k.algorithms = []jose.SignatureAlgorithm{only}
	}
	return k, nil
}

func parsePublic(texts map[string]string) (crypto.PublicKey, error) {
	only := map[string]string{}
	for _, name := range []string{"kty", "crv", "x", "y", "n", "e"} {
		if texts[name] != "" {
			only[name] = texts[name]
		}
	}
	encoded, err := json.Marshal(only)
	if err != nil {
		return nil, err
	}
	var jwk jose.JSONWebKey
	if err := jwk.UnmarshalJSON(encoded); err != nil || !jwk.Valid() || !jwk.IsPublic() {
		return nil, fmt.Errorf("is of kty %s %s, and cannot be read: want RSA of %d to %d bits, EC with P-256 or "+
			"P-384, or OKP with Ed25519", shorten(texts["kty"]), shorten(texts["crv"]), minRSABits,
			jose.MaxRSAModulusBits)
	}
	public := jwk.Key
	name, _ := pki.KeyName(public)
	if rsa, ok := public.(*rsa.PublicKey); ok {
		switch {
		case rsa.N.BitLen() < minRSABits:
			return nil, fmt.Errorf("is %s, want at least %d bits", name, minRSABits)
		case rsa.N.Bit(0) == 0 || rsa.E&1 == 0 || int64(rsa.E) >= 1<<31:
			return nil, fmt.Errorf("is %s with a modulus or exponent that no RSA key has", name)
		}
	}
	if len(algorithmsOf(public)) == 0 {
		return nil, fmt.Errorf("is %s, want RSA, ECDSA-P256, ECDSA-P384 or Ed25519", name)
	}
	return public, nil
}

// algorithmsOf are those that a key of this kind verifies.
func algorithmsOf(public crypto.PublicKey) []jose.SignatureAlgorithm {
	switch public := public.(type) {
	case *rsa.PublicKey:
		return []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256}
	case *ecdsa.PublicKey:
		switch public.Curve {
		case elliptic.P256():
			return []jose.SignatureAlgorithm{jose.ES256}
		case elliptic.P384():
			return []jose.SignatureAlgorithm{jose.ES384}
		}
	case ed25519.PublicKey:
		return []jose.SignatureAlgorithm{jose.EdDSA}
	}
	return nil
}

func join(algorithms []jose.SignatureAlgorithm) string {
	var names []string
	for _, a := range algorithms {
		names = append(names, string(a))
	}
	return strings.Join(names, ", ")
}

// find returns the key that a token is signed with, as its header says.
func (v *Verifier) find(set *keySet, p parts, c Claims, now time.Time) (key, *Error) {
	if set == nil {
		e := refuse(ReasonUnavailable, "cannot be verified: the keys of its issuer could not be read yet")
		e.RetryAfter = v.least
		return key{}, e
	}
	var named, fitting []key
	for _, k := range set.keys {
		if p.keyID == "" || p.keyID == k.id {
			named = append(named, k)
			if slices.Contains(k.algorithms, p.algorithm) {
				fitting = append(fitting, k)
			}
		}
	}
	switch {
	case len(fitting) == 1:
		return fitting[0], nil
	case len(fitting) > 1 && p.keyID == "":
		return key{}, refuse(ReasonKey, "has no kid in its header, and the issuer has %d keys for %s", len(fitting),
			p.algorithm)
	case len(fitting) > 1: // the JWKs have other lists of algorithms
		return key{}, refuse(ReasonKey, "has a kid, %s, that several keys of the issuer have", shorten(p.keyID))
	case p.keyID != "" && len(named) > 0:
		return key{}, refuse(ReasonAlgorithm, "has alg %s, but %s is for %s", p.algorithm, named[0].description(),
			join(named[0].algorithms))
	}
	e := refuse(ReasonKey, "has the kid %s, which is none of the issuer's %d keys for its alg: it is of another "+
		"cluster, or the keys are out of date", shorten(p.keyID), len(set.keys))
	if p.keyID == "" {
		e = refuse(ReasonKey, "has alg %s and no kid, and the issuer has no key for it", p.algorithm)
	}
	e.RetryAfter = v.want(c, now)
	return key{}, e
}

// recall returns the claims of a token that was verified before.
func (s *keySet) recall(digest [sha256.Size]byte) (Claims, bool) {
	if s == nil {
		return Claims{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.verified[digest]
	return c, ok
}

// remember keeps the claims of a token that was verified.
func (s *keySet) remember(digest [sha256.Size]byte, c Claims, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.verified) >= maxRemembered {
		s.makeRoom(now)
	}
	s.verified[digest] = c
}

// makeRoom drops the expired ones among some that a map gives at random, and one in any case.
func (s *keySet) makeRoom(now time.Time) {
	looked := 0
	for digest, c := range s.verified {
		if looked == 0 || now.After(c.Expires.Add(leeway)) {
			delete(s.verified, digest)
		}
		if looked++; looked == 64 {
			return
		}
	}
}
