package certservice

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/certfetcher/certfetcher/internal/admission"
	"github.com/certfetcher/certfetcher/internal/files"
)

// Configuration is the Directory that cmpServers.json describes. A file that cannot be loaded never
// replaces one that could: the last good set stays in use.
type Configuration struct {
	path      string
	build     func(Server) (Authority, error)
	metrics   *Metrics
	log       *slog.Logger
	reloading sync.Mutex        // held while reading, so that an older file cannot overtake a newer one
	read      map[string]digest // the files of the last reading, good or bad
	current   atomic.Pointer[authorities]
}

// digest identifies a file's content; it is all zero for a file that could not be read.
type digest [sha256.Size]byte

// String is the digest in hexadecimal digits, as sha256sum prints it.
func (d digest) String() string { return hex.EncodeToString(d[:]) }

type authorities map[string]loadedAuthority

type loadedAuthority struct {
	Authority
	maxInFlight int // 0: the default
}

// NewConfiguration returns a Configuration with nothing loaded yet; Reload loads it. build makes
// the authority for one server; an error from it counts as a fault of the file.
func NewConfiguration(path string, build func(Server) (Authority, error), m *Metrics, log *slog.Logger) *Configuration {
	return &Configuration{path: path, build: build, metrics: m, log: log}
}

// Lookup finds an authority of the loaded set, with its share as its entry says.
func (c *Configuration) Lookup(caName string) (Authority, admission.Share, bool) {
	loaded := c.current.Load()
	if loaded == nil {
		return nil, admission.Share{}, false
	}
	a, ok := (*loaded)[caName]
	return a.Authority, admission.Share{MaxInFlight: a.maxInFlight, Authorities: len(*loaded)}, ok
}

// Ready reports whether some version of the file was loaded.
func (c *Configuration) Ready() bool { return c.current.Load() != nil }

// Check reads the file as Reload does and returns its
// faults, but puts nothing to use. Warnings are logged.
func (c *Configuration) Check() Faults {
	c.reloading.Lock()
	defer c.reloading.Unlock()
	l := c.load("check")
	if l.err == nil {
		return l.file.Faults
	}
	if faults, ok := errors.AsType[Faults](l.err); ok {
		return faults
	}
	return Faults{l.err.Error()}
}

// Reload reads the file and puts the authorities that it describes to use. Requests in progress
// finish with the authority they began with. An entry with a fault keeps its last good version, if
// it has one, and is an error although the others are in use. All outcomes are logged.
func (c *Configuration) Reload(trigger string) error {
	c.reloading.Lock()
	defer c.reloading.Unlock()
	l := c.load(trigger)
	c.metrics.observeReload(l)
	base := filepath.Base(c.path)
	if l.err != nil {
		kept := "there is none yet, so no certificate can be issued"
		if c.Ready() {
			kept = "the last good configuration stays in use"
		}
		c.log.Error("configuration not loaded, "+kept, "path", c.path, "trigger", trigger, "error", l.err.Error())
		return fmt.Errorf("%s cannot be loaded, %s: %w", base, kept, l.err)
	}
	c.current.Store(&l.authorities)
	if len(l.file.Faults) > 0 {
		outcome := l.outcome()
		c.log.Error("configuration loaded in part", "path", c.path, "trigger", trigger, "servers", len(l.authorities),
			"outcome", outcome, "error", l.file.Faults.Error())
		return fmt.Errorf("%s is loaded in part, %s: %w", base, outcome, l.file.Faults)
	}
	c.log.Info("configuration loaded", "path", c.path, "trigger", trigger, "servers", len(l.authorities))
	return nil
}

// loading is the result of reading the file.
type loading struct {
	authorities authorities
	file        serversFile
	read        int      // authorities as the file describes them
	kept        []string // names of those that stay as they were
	err         error    // there is nothing to put to use
}

// outcome says what became of the entries, faulty ones included.
func (l loading) outcome() string {
	text := fmt.Sprintf("%d of %d servers as the file describes them", l.read, l.read+len(l.file.leftOut))
	if len(l.kept) > 0 {
		text += fmt.Sprintf(", as they were: %q", l.kept)
	}
	return text
}

func (c *Configuration) load(trigger string) loading {
	c.read = map[string]digest{}
	file, err := loadServers(c.path, func(name string) ([]byte, error) {
		data, err := readBounded(name)
		c.read[name] = digestOf(data, err)
		return data, err
	})
	l := loading{authorities: authorities{}, file: file, err: err}
	for _, server := range file.Servers {
		a, err := c.build(server)
		if err != nil {
			l.file.leaveOut(server.CAName, Faults{server.place + ": " + err.Error()})
			continue
		}
		l.authorities[server.CAName] = loadedAuthority{a, server.MaxInFlight}
	}
	l.read = len(l.authorities)
	if l.err == nil {
		l.keep(c.current.Load())
	}
	if l.err == nil && len(l.authorities) == 0 {
		l.err = l.file.Faults
	}
	for _, warning := range l.file.Warnings {
		c.log.Warn("the configuration needs attention", "path", c.path, "trigger", trigger, "error", warning)
	}
	return l
}

// keep adds the last good versions of the entries left out. One whose name cannot be read may be
// any of those that the file does not name, so all of them stay.
func (l *loading) keep(before *authorities) {
	if before == nil {
		return
	}
	nameless := slices.Contains(l.file.leftOut, "")
	for _, name := range slices.Sorted(maps.Keys(*before)) {
		if _, loaded := l.authorities[name]; !loaded && (nameless || slices.Contains(l.file.leftOut, name)) {
			l.authorities[name] = (*before)[name]
			l.kept = append(l.kept, name)
		}
	}
}

// settle is how long the files must be left alone before they are read: the kubelet and editors
// make several changes in a row.
const settle = 200 * time.Millisecond

// Watch reloads whenever the content of the file or of a
// file that it names changes, until ctx ends.
func (c *Configuration) Watch(ctx context.Context, by *files.Watcher) {
	followFiles(ctx, by, c.directories, func() {
		if c.haveFilesChanged() {
			_ = c.Reload("file changed") // logged there; the next change is the next attempt
		}
	})
}

// followFiles calls changed when files in the directories may have changed, until ctx ends.
func followFiles(ctx context.Context, by *files.Watcher, dirs func() []string, changed func()) {
	(&files.Follower{Watcher: by, Dirs: dirs, Quiet: settle, Changed: changed}).Run(ctx)
}

// directories are those of all files read, which change with cmpServers.json.
func (c *Configuration) directories() []string {
	c.reloading.Lock()
	defer c.reloading.Unlock()
	dirs := files.DirsOf(c.path)
	for name := range c.read {
		dirs = append(dirs, files.DirsOf(name)...)
	}
	return dirs
}

// haveFilesChanged compares content and not times, so that replacing the link of an unchanged
// secret does not reload.
func (c *Configuration) haveFilesChanged() bool {
	c.reloading.Lock()
	defer c.reloading.Unlock()
	if _, read := c.read[c.path]; !read {
		return true
	}
	for name, before := range c.read {
		if digestOf(readBounded(name)) != before {
			return true
		}
	}
	return false
}

func digestOf(data []byte, err error) digest {
	if err != nil {
		return digest{}
	}
	return sha256.Sum256(data)
}
