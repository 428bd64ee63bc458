package certservice

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/certfetcher/certfetcher/internal/files"
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
		soon := c.NextUpdate.Add(-min(24*time.Hour, c.NextUpdate.Sub(c.ThisUpdate)/2))
		stage, change := crlExpired, time.Time{}
		switch {
		case now.Before(soon):
			stage, change = crlValid, soon
		case !now.After(c.NextUpdate):
			stage, change = crlEndsSoon, c.NextUpdate.Add(time.Millisecond)
		}
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

// Reload reads the files and puts their CRLs to use. All outcomes are logged. The error says which
// files cannot be used.
func (r *Revocations) Reload(trigger string) error {
	if faults := r.reload(trigger, false); len(faults) > 0 {
		return fmt.Errorf("CLIENT_CRL_PATH: %w", faults)
	}
	return nil
}

// reload does nothing where nothing has changed, if that is wanted.
func (r *Revocations) reload(trigger string, onlyChanges bool) Faults {
	r.reloading.Lock()
	defer r.reloading.Unlock()
	read := r.read()
	if onlyChanges && maps.EqualFunc(r.files, read, sameCRLFile) {
		return nil
	}
	before := r.files
	r.files = read
	next := r.newSet()
	faults := next.fill(read)
	r.current.Store(next)
	r.labels = r.cfg.Metrics.observeCRLs(next.series(), r.labels, len(faults) == 0)
	r.logReading(trigger, before, faults)
	next.warnOfEnds(r.now())
	select {
	case r.replaced <- struct{}{}:
	default:
	}
	return faults
}

// sameCRLFile compares content and not times, so that replacing the link of an unchanged file does
// not reload.
func sameCRLFile(a, b *crlFile) bool { return a.digest == b.digest && a.fault == b.fault }

func (r *Revocations) newSet() *crlSet {
	return &crlSet{byIssuer: map[string][]*crl{}, warnOnly: r.cfg.WarnOnly, log: r.cfg.Log,
		said: map[string]bool{}, stage: map[*crl]crlStage{}}
}

// fill takes the CRLs of files, each once, and returns the faults.
func (s *crlSet) fill(read map[string]*crlFile) (faults Faults) {
	seen := map[digest]bool{}
	for _, path := range slices.Sorted(maps.Keys(read)) {
		file := read[path]
		if file.fault != "" {
			faults = append(faults, fmt.Sprintf("%q %s", path, file.fault))
		}
		for _, c := range file.crls {
			if !seen[c.digest] {
				seen[c.digest] = true
				key := nameKey(c.RawIssuer)
				s.byIssuer[key] = append(s.byIssuer[key], c)
			}
		}
	}
	for _, list := range s.byIssuer {
		slices.SortStableFunc(list, func(a, b *crl) int {
			switch {
			case a.Newer(b.CRL):
				return -1
			case b.Newer(a.CRL):
				return 1
			}
			return 0
		})
	}
	return faults
}

// maxLoggedFaults bounds a line: a directory may hold many files of another kind.
const maxLoggedFaults = 10

func (r *Revocations) logReading(trigger string, before map[string]*crlFile, faults Faults) {
	r.logUnused(trigger)
	for _, path := range slices.Sorted(maps.Keys(before)) {
		if _, there := r.files[path]; !there && len(before[path].crls) > 0 {
			r.cfg.Log.Warn("a file with CRLs was removed, they are no longer used", "path", path, "trigger", trigger)
		}
	}
	crls, listed := 0, 0
	for _, file := range r.files {
		crls += len(file.crls)
		for _, c := range file.crls {
			listed += c.Len()
		}
	}
	log := r.cfg.Log.With("trigger", trigger, "files", len(r.files), "crls", crls, "revoked", listed)
	text := strings.Join(pki.FirstOf(faults, maxLoggedFaults), "; ")
	switch {
	case len(faults) == 0 && crls == 0:
		log.Warn("there are no CRLs in CLIENT_CRL_PATH that can be used")
	case len(faults) == 0:
		log.Info("CRLs loaded")
	case crls == 0:
		log.Error("CRLs not loaded, there are none", "error", text)
	default:
		log.Error("CRLs loaded in part, files with a fault keep their last good ones", "error", text)
	}
}

func (r *Revocations) logUnused(trigger string) {
	for _, path := range slices.Sorted(maps.Keys(r.files)) {
		for _, reason := range r.files[path].unused {
			r.cfg.Log.Warn("a CRL is not used", "path", path, "trigger", trigger, "error", reason)
		}
	}
}

// Check reads the files as Reload does and returns their faults, but
// puts nothing to use. Warnings are logged.
func (r *Revocations) Check() Faults {
	r.reloading.Lock()
	defer r.reloading.Unlock()
	r.files = r.read()
	r.logUnused("check")
	set := r.newSet()
	faults := set.fill(r.files)
	set.warnOfEnds(r.now())
	return faults
}

// read reads all files; those that are as they were are not parsed again.
func (r *Revocations) read() map[string]*crlFile {
	reading := crlReading{before: r.files, known: map[digest]*crl{}, most: r.most, room: r.most,
		read: map[string]*crlFile{}}
	for _, file := range r.files {
		for _, c := range file.crls {
			reading.known[c.digest] = c
		}
	}
	for _, path := range r.paths {
		names, err := crlPaths(path)
		if err != nil {
			reading.keepAll(path, files.Explain(path, files.Reason(err)).Error())
			continue
		}
		for _, name := range names {
			reading.file(name, name != path)
		}
	}
	return reading.read
}

// crlPaths are the files of a directory, or a path itself. Files with a
// point in front are passed over: Kubernetes has its own ones there.
func crlPaths(path string) (names []string, err error) {
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		return []string{path}, err
	}
	entries, err := os.ReadDir(path)
	for _, entry := range entries {
		name := filepath.Join(path, entry.Name())
		if entry.IsDir() || strings.HasPrefix(entry.Name(), ".") {
			continue
		}
		names = append(names, name)
	}
	return names, err
}

// crlReading is one reading of all files.
type crlReading struct {
	before map[string]*crlFile
	known  map[digest]*crl
	most   int64
	room   int64 // what is left of most
	read   map[string]*crlFile
}

// keepAll keeps what a path had that cannot be looked at, a directory's files included.
func (r *crlReading) keepAll(path, fault string) {
	for name, file := range r.before {
		if filepath.Dir(name) == path {
			r.read[name] = file
		}
	}
	r.keep(path, digest{}, fault)
}

// keep keeps the last good CRLs of a file with a fault.
func (r *crlReading) keep(path string, d digest, fault string) {
	file := &crlFile{digest: d, fault: fault}
	if before := r.before[path]; before != nil {
		file.crls = before.crls
	}
	r.read[path] = file
}

// file reads a file; one that was listed in a directory may be gone again.
func (r *crlReading) file(path string, listed bool) {
	if r.read[path] != nil {
		return // named twice
	}
	data, _, err := files.Read(path, r.room)
	switch {
	case err != nil:
		if _, gone := os.Lstat(path); listed && errors.Is(gone, fs.ErrNotExist) {
			return
		}
		r.keep(path, digest{}, files.Explain(path, files.Reason(err)).Error())
		return
	case int64(len(data)) > r.room:
		r.keep(path, digest{}, fmt.Sprintf("is not read: the files of CLIENT_CRL_PATH have more than %d bytes "+
			"together, want fewer", r.most))
		return
	}
	r.room -= int64(len(data))
	d := digest(sha256.Sum256(data))
	before := r.before[path]
	if before != nil && before.digest == d {
		r.read[path] = before
		return
	}
	file := &crlFile{digest: d}
	err = r.parse(data, file)
	if err == nil && len(file.crls) == 0 && before != nil && len(before.crls) > 0 {
		err = fmt.Errorf("has no CRL any more that can be used: %s", strings.Join(file.unused, "; "))
	}
	if err != nil {
		r.keep(path, d, err.Error())
		return
	}
	r.read[path] = file
}

// parse reads the CRLs of a file. The error, for what is not a
// file with CRLs that can be read, is a sentence's rest.
func (r *crlReading) parse(data []byte, file *crlFile) error {
	if !pki.HasPEM(data) {
		if err := r.take(data, file); err != nil {
			return fmt.Errorf("has no PEM block, and is no CRL in DER: %w", err)
		}
		return nil
	}
	blocks, err := pki.PEMBlocks(data)
	if err != nil {
		return err
	}
	found := false
	for _, b := range blocks {
		if b.Label != labelCRL && (b.Label != "" || b.Err == nil) {
			continue
		}
		found = true
		err := b.Err
		if err == nil {
			err = r.take(b.Bytes, file)
		}
		if err != nil {
			return fmt.Errorf("cannot be used: %v: %w", b, err)
		}
	}
	if !found {
		return fmt.Errorf("has no CRL, want a PEM file with %q", labelCRL)
	}
	return nil
}

const labelCRL = "X509 CRL"

// take adds a CRL to a file.
func (r *crlReading) take(der []byte, file *crlFile) error {
	d := digest(sha256.Sum256(der))
	if known := r.known[d]; known != nil {
		file.crls = append(file.crls, known)
		return nil
	}
	parsed, err := pki.ParseCRL(der)
	if unused, ok := errors.AsType[pki.UnusedCRLError](err); ok {
		file.unused = append(file.unused, unused.Error())
		return nil
	}
	if err != nil {
		return err
	}
	c := &crl{CRL: parsed, digest: d, issuer: shortName(parsed.RawIssuer), verified: map[digest]error{}}
	r.known[d] = c
	file.crls = append(file.crls, c)
	return nil
}

// Watch reads the files again whenever their content changes, and warns of CRLs that
// end, until ctx ends. An error means that changes are not noticed; it warns all the same.
func (r *Revocations) Watch(ctx context.Context) error {
	go r.warnInTime(ctx)
	f := &files.Follower{
		Dirs: r.directories, Quiet: settle,
		Changed: func() { r.reload("file changed", true) },
		Failed: func(dir string, err error) {
			r.cfg.Log.Warn("changes of the CRLs in this directory are not noticed: reload with "+
				"SIGHUP or GET /reload",
				"dir", dir, "error", err.Error())
		},
	}
	if err := f.Start(); err != nil {
		return err
	}
	f.Run(ctx)
	return nil
}

func (r *Revocations) warnInTime(ctx context.Context) {
	for {
		timer := time.NewTimer(r.set().warnOfEnds(r.now()))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		case <-r.replaced:
			timer.Stop()
		}
	}
}

// directories are those of all paths and of all files, and the directories among the paths.
func (r *Revocations) directories() (dirs []string) {
	r.reloading.Lock()
	defer r.reloading.Unlock()
	for _, path := range r.paths {
		dirs = append(dirs, files.DirsOf(path)...)
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			dirs = append(dirs, files.DirsOf(filepath.Join(path, "any"))...)
		}
	}
	for path := range r.files {
		dirs = append(dirs, files.DirsOf(path)...)
	}
	return dirs
}
