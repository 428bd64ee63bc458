package certservice

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/internal/verify"
)

// RevocationsConfig says where the CRLs are, and what counts without them.
type RevocationsConfig struct {
	Paths string // of files with CRLs, PEM or DER, and of directories that hold nothing else, separated by :
	// WarnOnly lets client certificates pass, with a warning in the log, whose issuer has no CRL
	// that is valid now. One that is listed is refused all the same, by an expired CRL as well.
	WarnOnly bool
	Metrics  *Metrics // nil where only Check is called
	Log      *slog.Logger
}

// Revocations knows the CRLs (RFC 5280, section 5) that client certificates must not be in. They
// are read from files; one that cannot be used never replaces what was good: the last good CRLs of
// that file stay. Only a file that is removed from a directory takes its CRLs along.
type Revocations struct {
	cfg       RevocationsConfig
	paths     []string
	now       func() time.Time
	most      int64               // bytes of all files
	reloading sync.Mutex          // held while reading
	files     map[string]*crlFile // of the last reading, by path
	labels    map[string]bool     // of the metric
	current   atomic.Pointer[crlSet]
	replaced  chan struct{} // after current was
}

// maxCRLBytes bounds what is read from all files together. A CRL takes
// about as much memory as its DER, 40 octets for each certificate.
const maxCRLBytes = 64 << 20

// crlFile is a file as it was read last.
type crlFile struct {
	digest digest   // zero: it could not be read
	fault  string   // "" when it could be used
	unused []string // why some CRLs in it are not used
	crls   []*crl   // the last good ones
}

// crl is a CRL in use. Which certificates its signature verifies under is found out once.
type crl struct {
	*pki.CRL
	digest   digest
	issuer   string // for messages and metrics
	mu       sync.Mutex
	verified map[digest]error // by the issuer's certificate
}

// maxCRLIssuers bounds how many certificates of one name are remembered for a CRL.
const maxCRLIssuers = 64

func (c *crl) check(issuer *x509.Certificate) error {
	key := digest(sha256.Sum256(issuer.Raw))
	c.mu.Lock()
	defer c.mu.Unlock()
	err, known := c.verified[key]
	if !known {
		if len(c.verified) >= maxCRLIssuers {
			clear(c.verified)
		}
		err = c.CheckSignatureFrom(issuer)
		c.verified[key] = err
	}
	return err
}

// crlSet is what is in use at a time; it is replaced as a whole.
type crlSet struct {
	byIssuer map[string][]*crl // by nameKey, the newest first
	warnOnly bool
	log      *slog.Logger

	mu    sync.Mutex
	said  map[string]bool // problems that were logged
	stage map[*crl]crlStage
}

// crlStage is how near the end of a CRL is.
type crlStage int

const (
	crlValid crlStage = iota
	crlEndsSoon
	crlExpired
)

// NewRevocations returns a Revocations with nothing read yet; Reload reads the files.
func NewRevocations(cfg RevocationsConfig) *Revocations {
	r := &Revocations{cfg: cfg, now: time.Now, most: maxCRLBytes, replaced: make(chan struct{}, 1)}
	for _, path := range filepath.SplitList(cfg.Paths) {
		if path != "" {
			r.paths = append(r.paths, filepath.Clean(path))
		}
	}
	r.current.Store(r.newSet())
	if cfg.Metrics != nil {
		cfg.Metrics.expectCRLs()
	}
	return r
}

// set is what is in use now. That of a nil Revocations is nil: nothing is looked up.
func (r *Revocations) set() *crlSet {
	if r == nil {
		return nil
	}
	return r.current.Load()
}

// Revoked returns why the certificates of a verified path, the leaf first, do not count, or "", and
// until when that holds unless the CRLs are replaced; zero: for ever. The last one is trusted, so
// that it is not looked up.
func (s *crlSet) Revoked(chain []*x509.Certificate, now time.Time) (reason string, until time.Time) {
	for i, cert := range chain[:len(chain)-1] {
		reason, end := s.lookUp(cert, chain[i+1], now)
		if reason != "" {
			if i > 0 {
				reason = fmt.Sprintf("its authority %q: %s", shortName(cert.RawSubject), reason)
			}
			return reason, time.Time{}
		}
		until = earlier(until, end)
	}
	return "", until
}

// choose returns the first path that is not revoked, or why there is none.
func (s *crlSet) choose(paths [][]*x509.Certificate, now time.Time) (path []*x509.Certificate,
	reason string, until time.Time) {
	if s == nil {
		return paths[0], "", time.Time{}
	}
	for _, path := range paths {
		refusal, until := s.Revoked(path, now)
		if refusal == "" {
			return path, "", until
		}
		if reason == "" {
			reason = refusal
		}
	}
	return nil, reason, time.Time{}
}

// earlier is the earlier of two times; zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func (s *crlSet) lookUp(cert, issuer *x509.Certificate, now time.Time) (reason string, until time.Time) {
	crl, problem, until := s.find(cert, issuer, now)
	if crl != nil {
		if entry, found := crl.Find(cert.SerialNumber); found {
			return fmt.Sprintf("revoked at %s, reason %s, serial %s, CRL issuer %q", pki.Stamp(entry.At),
				entry.Reason, pki.Serial(cert), crl.issuer), time.Time{}
		}
	}
	if problem != "" && !s.warnOnly {
		return problem, time.Time{}
	}
	if problem != "" {
		s.warn(problem)
	}
	return "", until
}

// find returns the CRL that says whether the certificate was revoked: of those for it that its
// issuer signed, the newest that has begun. The problem says why there is none, or why it does not
// count.
func (s *crlSet) find(cert, issuer *x509.Certificate, now time.Time) (found *crl, problem string, until time.Time) {
	name := shortName(cert.RawIssuer)
	problem = fmt.Sprintf("there is no CRL of %q in CLIENT_CRL_PATH: add the authority's CRL", name)
	for _, c := range s.byIssuer[nameKey(cert.RawIssuer)] {
		if uncovered := c.Uncovered(cert); uncovered != "" {
			if found == nil {
				problem = fmt.Sprintf("the CRL of %q in CLIENT_CRL_PATH %s: add the one for this certificate",
					name, uncovered)
			}
			continue
		}
		if err := c.check(issuer); err != nil {
			if found == nil {
				problem = signatureProblem(name, err)
			}
			continue
		}
		begin := c.ThisUpdate.Add(-verify.Skew)
		if now.Before(begin) {
			found, until = c, earlier(until, begin)
			problem = fmt.Sprintf("the CRL of %q is valid only from %s on: is this machine's clock right?",
				name, pki.Stamp(c.ThisUpdate))
			continue
		}
		if now.After(c.NextUpdate) {
			return c, fmt.Sprintf("the CRL of %q expired at %s: replace it by the authority's current one",
				name, pki.Stamp(c.NextUpdate)), until
		}
		return c, "", earlier(until, c.NextUpdate)
	}
	return found, problem, until
}

func signatureProblem(name string, err error) string {
	if _, ok := errors.AsType[x509.ConstraintViolationError](err); ok {
		return fmt.Sprintf("the certificate of %q does not allow it to sign CRLs: have it issued with the key "+
			"usage cRLSign", name)
	}
	return fmt.Sprintf("the CRL of %q in CLIENT_CRL_PATH is not signed with the key that signed the "+
		"certificate (%v): add the CRL of that key", name, err)
}

// warn logs once what is let pass.
func (s *crlSet) warn(problem string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.said[problem] || len(s.said) >= maxCRLIssuers {
		return
	}
	s.said[problem] = true
	s.log.Warn("client certificates are let pass that may have been revoked", "error", problem)
}

// series are the CRLs that no newer one replaces.
func (s *crlSet) series() (list []*crl) {
	for _, key := range slices.Sorted(maps.Keys(s.byIssuer)) {
		var newest []*crl
		for _, c := range s.byIssuer[key] {
			if !slices.ContainsFunc(newest, func(n *crl) bool { return n.SameSeries(c.CRL) }) {
				newest = append(newest, c)
			}
		}
		list = append(list, newest...)
	}
	return list
}

// warnOfEnds logs which CRLs have expired or do so within a day, each once, and returns when to look
// again. Of a CRL that is valid for less than two days it is the second half.
func (s *crlSet) warnOfEnds(now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := time.Hour // the clock may be set meanwhile
	for _, c := range s.series() {
		stage, change := c.stageAt(now)
		if !change.IsZero() {
			next = min(next, change.Sub(now))
		}
		if stage > s.stage[c] {
			s.warnOfEnd(c, stage)
		}
		s.stage[c] = stage
	}
	return next
}

// stageAt also returns when the stage changes; zero: never.
func (c *crl) stageAt(now time.Time) (stage crlStage, change time.Time) {
	soon := c.NextUpdate.Add(-min(24*time.Hour, c.NextUpdate.Sub(c.ThisUpdate)/2))
	switch {
	case now.Before(soon):
		return crlValid, soon
	case !now.After(c.NextUpdate):
		return crlEndsSoon, c.NextUpdate.Add(time.Millisecond)
	}
	return crlExpired, time.Time{}
}

func (c *crl) end() string { return fmt.Sprintf("%q (at %s)", c.issuer, pki.Stamp(c.NextUpdate)) }

func (s *crlSet) warnOfEnd(c *crl, stage crlStage) {
	message, verb, effect := "a CRL expires soon", "expires at", "from then on client certificates of this issuer are "
	if stage == crlExpired {
		message, verb, effect = "a CRL has expired", "expired at", "client certificates of this issuer are "
	}
	outcome := "refused"
	if s.warnOnly {
		outcome = "let pass if they are not in it"
	}
	s.log.Warn(message, "issuer", c.issuer, "next_update", c.NextUpdate.UTC(), "error",
		fmt.Sprintf("it %s %s; %s%s: replace it in CLIENT_CRL_PATH by the authority's current one", verb,
			pki.Stamp(c.NextUpdate), effect, outcome))
}

// nameKey is equal for names that are the same by RFC 5280, 7.1.
func nameKey(raw []byte) string {
	if rdns, ok := pki.RDNs(raw); ok {
		return strings.Join(rdns, "\n")
	}
	return string(raw)
}

// shortName is a name for messages and labels.
func shortName(raw []byte) string { return pki.OneLine(pki.DN(raw), 128) }
