// Package token verifies projected service account tokens of Kubernetes, which are JSON Web Tokens
// (RFC 7519) in the compact form of JWS (RFC 7515). The keys of the issuer come from a file or, by
// OpenID Connect Discovery, from the issuer; they are read again while the service runs. No other
// service is asked about a token: one that was stolen is valid until it expires.
package token

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// clusterDir is where Kubernetes puts what every pod has of its cluster.
const clusterDir = "/var/run/secrets/kubernetes.io/serviceaccount/"

// Settings say which tokens are accepted. The names of variables are those in errors.
type Settings struct {
	Issuer   string // TOKEN_ISSUER: equal to iss, byte for byte
	Audience string // TOKEN_AUDIENCE: one of aud
	// JWKSPath, TOKEN_JWKS_PATH, is a file with a JSON Web Key Set; "": discovery at Issuer, which
	// must be an https URL then.
	JWKSPath string
	// IssuerCA, TOKEN_ISSUER_CA, is a PEM file with the only CAs that are trusted for discovery;
	// "": that of the cluster the service runs in where there is one, else the system's.
	IssuerCA     string
	AllowUnbound bool // TOKEN_ALLOW_UNBOUND: tokens that are not bound to a pod as well

	// OwnTokenPath is the file with the service's own token, which the issuer's host gets with
	// requests, and no other host; "": where Kubernetes puts it. There may be none.
	OwnTokenPath string

	Log *slog.Logger     // nil: none
	Now func() time.Time // nil: time.Now
	// Read is called after each reading with the number of keys in use, and with their version,
	// which is equal where the keys are; may be nil.
	Read func(keys int, version string, err error)
}

// Verifier verifies tokens. It may be used by many goroutines.
type Verifier struct {
	settings  Settings
	issuer    *url.URL // with discovery
	clusterCA string   // the file; another in tests

	interval time.Duration // between readings with discovery
	least    time.Duration // between readings that strangers can cause

	keys   atomic.Pointer[keySet] // nil: none could be read yet
	wanted chan struct{}          // a token is signed with a key that is not known

	reading sync.Mutex // held while reading, so that older keys cannot overtake newer ones

	mu        sync.Mutex // guards what follows
	attempted time.Time  // when the last reading began
	succeeded time.Time  // when the last one that succeeded began
	failures  int        // since then
	content   digest     // of the last reading
}

// digest identifies a set's content; it is all zero for one that could not be read.
type digest [sha256.Size]byte

// New returns a Verifier that has no keys yet: Reload reads them, and Run keeps reading them. The
// error names each variable that is wrong.
func New(s Settings) (*Verifier, error) {
	v := &Verifier{settings: s, clusterCA: clusterDir + "ca.crt", wanted: make(chan struct{}, 1),
		interval: 5 * time.Minute, least: 10 * time.Second}
	var faults []error
	if s.Issuer == "" {
		faults = append(faults, errors.New("TOKEN_ISSUER is not set, want the issuer of the tokens"))
	} else if s.JWKSPath == "" {
		issuer, err := parseURL(s.Issuer)
		if err == nil && (issuer.RawQuery != "" || issuer.ForceQuery || strings.Contains(s.Issuer, "#")) {
			err = errors.New("has a query or a fragment")
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("TOKEN_ISSUER %s %w, want one such as "+
				"https://kubernetes.default.svc.cluster.local, or the issuer's keys in TOKEN_JWKS_PATH",
				shortenURL(s.Issuer), err))
		}
		v.issuer = issuer
	}
	if s.Audience == "" {
		faults = append(faults, errors.New("TOKEN_AUDIENCE is not set, want the audience that tokens must be for, "+
			"as in the projected volumes of the clients"))
	}
	if v.settings.OwnTokenPath == "" {
		v.settings.OwnTokenPath = clusterDir + "token"
	}
	if s.Log == nil {
		v.settings.Log = slog.New(slog.DiscardHandler)
	}
	if s.Now == nil {
		v.settings.Now = time.Now
	}
	if s.Read == nil {
		v.settings.Read = func(int, string, error) {}
	}
	return v, errors.Join(faults...)
}

// Keys returns how many keys of the issuer are in use.
func (v *Verifier) Keys() int {
	if set := v.keys.Load(); set != nil {
		return len(set.keys)
	}
	return 0
}
