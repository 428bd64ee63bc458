package certservice

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/internal/pki"
)

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
	r.cfg.Metrics.readings.note(readCRLs, next.attempt(faults))
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
// end, until ctx ends.
func (r *Revocations) Watch(ctx context.Context, by *files.Watcher) {
	go r.warnInTime(ctx)
	followFiles(ctx, by, r.directories, func() { r.reload("file changed", true) })
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
