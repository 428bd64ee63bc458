package certservice

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/internal/policy"
)

// PolicyFile is the policy in POLICY_PATH. A file that cannot be used never replaces one that could.
type PolicyFile struct {
	path      string
	metrics   *Metrics
	log       *slog.Logger
	limits    *policy.Limits
	reloading sync.Mutex // held while reading, so that an older file cannot overtake a newer one
	read      *digest    // of the last reading, good or bad; nil: none
	current   atomic.Pointer[policy.Policy]
}

// NewPolicyFile returns a PolicyFile with nothing loaded yet; Reload loads it.
func NewPolicyFile(path string, m *Metrics, log *slog.Logger) *PolicyFile {
	return &PolicyFile{path: path, metrics: m, log: log, limits: policy.NewLimits()}
}

// Current is the policy in use; nil: no version of the file was usable, and nothing is allowed.
func (f *PolicyFile) Current() *policy.Policy { return f.current.Load() }

// Check reads the file and returns its faults.
func (f *PolicyFile) Check() []string {
	_, _, err := f.load()
	if faults, ok := errors.AsType[policy.Faults](err); ok {
		texts := make([]string, len(faults))
		for i, fault := range faults {
			texts[i] = fault.Error()
		}
		return texts
	}
	if err != nil {
		return []string{err.Error()}
	}
	return nil
}

func (f *PolicyFile) load() (*policy.Policy, digest, error) {
	data, err := readBounded(f.path)
	if err != nil {
		return nil, digest{}, err
	}
	p, err := policy.Parse(data)
	return p, digestOf(data, nil), err
}

// Reload reads the file and puts it to use. Outcomes are logged.
func (f *PolicyFile) Reload(trigger string) error {
	f.reloading.Lock()
	defer f.reloading.Unlock()
	p, digest, err := f.load()
	f.read = &digest
	f.metrics.observePolicy(p, digest, err)
	if err != nil {
		kept := "there is none yet, so nothing is allowed"
		if f.Current() != nil {
			kept = "the last good policy stays in use"
		}
		f.log.Error("policy not loaded, "+kept, "path", f.path, "trigger", trigger, "error", err.Error())
		return fmt.Errorf("%s cannot be loaded, %s: %w", filepath.Base(f.path), kept, err)
	}
	f.current.Store(p)
	f.log.Info("policy loaded", "path", f.path, "trigger", trigger, "rules", len(p.Rules), "warn_only", p.WarnOnly)
	if p.WarnOnly {
		f.log.Warn("the policy only warns: names, keys, usages and rates are not enforced", "path", f.path)
	}
	return nil
}

// Watch reloads whenever the content of the file changes, until ctx ends.
func (f *PolicyFile) Watch(ctx context.Context, by *files.Watcher) {
	followFiles(ctx, by, func() []string { return files.DirsOf(f.path) }, func() {
		if f.hasChanged() {
			_ = f.Reload("file changed") // logged there; the next change is the next attempt
		}
	})
}

// hasChanged compares content and not times, so that replacing the link of an unchanged ConfigMap
// does not reload.
func (f *PolicyFile) hasChanged() bool {
	f.reloading.Lock()
	defer f.reloading.Unlock()
	return f.read == nil || digestOf(readBounded(f.path)) != *f.read
}
