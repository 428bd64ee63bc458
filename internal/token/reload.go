package token

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/certfetcher/certfetcher/internal/files"
)

// What sets off a reading, in the log.
const (
	triggerStart    = "start"
	triggerInterval = "interval"
	triggerUnknown  = "unknown key"
	triggerFile     = "file changed"
)

// Reload reads the issuer's keys and puts them to use. A set that cannot be read, or has no key
// that can be used, never replaces a good one. All outcomes are logged. With discovery it takes up
// to 10 seconds.
func (v *Verifier) Reload(trigger string) error { return v.reload(context.Background(), trigger) }

// Check reads the issuer's keys as Reload does, and puts nothing to use. It returns a description
// of each, and a sentence for each that is passed over.
func (v *Verifier) Check() (keys, warnings []string, err error) {
	data, err := v.read(context.Background())
	if err != nil {
		return nil, nil, err
	}
	set, warnings, err := v.parse(data)
	if err != nil {
		return nil, nil, err
	}
	for _, k := range set.keys {
		keys = append(keys, k.description())
	}
	return keys, warnings, nil
}

func (v *Verifier) read(ctx context.Context) ([]byte, error) {
	path := v.settings.JWKSPath
	if path == "" {
		data, err := v.discover(ctx)
		if err != nil {
			err = v.blame(err)
		}
		return data, err
	}
	data, _, err := files.Read(path, maxSetBytes)
	if err != nil {
		return nil, v.blame(files.Explain(path, err))
	}
	return data, nil
}

func (v *Verifier) parse(data []byte) (*keySet, []string, error) {
	set, warnings, err := parseSet(data)
	switch {
	case err == nil:
		return set, warnings, nil
	case v.issuer != nil:
		err = fmt.Errorf("its set of keys %w", err)
	}
	return nil, nil, v.blame(err)
}

// blame names the variable that says where the keys are.
func (v *Verifier) blame(err error) error {
	if path := v.settings.JWKSPath; path != "" {
		return fmt.Errorf("TOKEN_JWKS_PATH %q %w", path, err)
	}
	return fmt.Errorf("TOKEN_ISSUER %q: %w", v.settings.Issuer, err)
}

func (v *Verifier) reload(ctx context.Context, trigger string) error {
	v.reading.Lock()
	defer v.reading.Unlock()
	began := v.settings.Now()
	v.mu.Lock()
	v.attempted = began
	v.mu.Unlock()

	data, err := v.read(ctx)
	var set *keySet
	var warnings []string
	if err == nil {
		set, warnings, err = v.parse(data)
	}
	if err != nil && ctx.Err() != nil {
		return err // the service ends
	}
	isNew := v.conclude(began, data, err)
	log := v.settings.Log.With("issuer", v.settings.Issuer, "trigger", trigger)
	if err != nil {
		kept := "there are none yet, so no token is accepted"
		if v.Keys() > 0 {
			kept = "the last good ones stay in use"
		}
		log.Error("the keys of the token issuer were not read, "+kept, "error", err.Error())
		v.settings.Read(v.Keys(), v.keys.Load().version(), err)
		return fmt.Errorf("the keys of the token issuer were not read, %s: %w", kept, err)
	}
	if isNew {
		for _, warning := range warnings {
			log.Warn("a key of the token issuer is not used", "error", warning)
		}
	}
	level := slog.LevelInfo
	if !isNew && (trigger == triggerInterval || trigger == triggerUnknown) {
		level = slog.LevelDebug
	}
	if !v.keys.Load().sameKeys(set) { // else what was verified stays verified
		v.keys.Store(set)
	}
	log.Log(ctx, level, "the keys of the token issuer were read", "keys", len(set.keys))
	v.settings.Read(len(set.keys), set.version(), nil)
	return nil
}

// conclude notes the outcome of a reading. It tells whether the content is another than that of the
// last one, as it is after one that failed.
func (v *Verifier) conclude(began time.Time, data []byte, err error) (isNew bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	content := digestOf(data)
	isNew, v.content = content != v.content, content
	if err != nil {
		v.failures++
	} else {
		v.failures, v.succeeded = 0, began
	}
	return isNew
}

func digestOf(data []byte) digest {
	if data == nil {
		return digest{}
	}
	return sha256.Sum256(data)
}

// want has the keys read again soon, as a token came that is signed with one that is not known. It
// returns when to come back with it, or 0 where the keys that are in use were read after the token
// was issued, so that another reading will not help.
func (v *Verifier) want(c Claims, now time.Time) time.Duration {
	if v.issuer == nil {
		return 0 // the file is followed
	}
	select {
	case v.wanted <- struct{}{}:
	default:
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.succeeded.After(c.IssuedAt.Add(leeway)) {
		return 0
	}
	return min(max(v.least-now.Sub(v.attempted), time.Second), v.least)
}

// Run reads the keys again until ctx ends: the file when it changes; by discovery every five
// minutes, and when a token is signed with a key that is not known, but not more often for that
// than every ten seconds. An issuer that fails is asked again sooner. All outcomes are logged.
func (v *Verifier) Run(ctx context.Context, by *files.Watcher) {
	if v.issuer == nil {
		v.follow(ctx, by)
		return
	}
	for {
		trigger := triggerInterval
		next := time.NewTimer(v.pause())
		select {
		case <-ctx.Done():
		case <-next.C:
		case <-v.wanted:
			trigger = triggerUnknown
			v.mu.Lock()
			rest := v.least - v.settings.Now().Sub(v.attempted)
			v.mu.Unlock()
			next.Reset(max(min(rest, v.least), 0))
			select {
			case <-ctx.Done():
			case <-next.C:
			}
		}
		next.Stop()
		if ctx.Err() != nil {
			return
		}
		_ = v.reload(ctx, trigger) // logged there
	}
}

// pause is how long to wait for the next reading. It varies, so that many services do not ask at
// the same time.
func (v *Verifier) pause() time.Duration {
	v.mu.Lock()
	defer v.mu.Unlock()
	pause := v.interval
	switch {
	case v.attempted.IsZero():
		return 0
	case v.failures > 0:
		pause = min(pause, time.Second<<min(v.failures-1, 16))
	}
	return pause - time.Duration(rand.Float64()*0.2*float64(pause))
}

// settle is how long the file must be left alone before it is read: a replacement consists of
// several steps.
const settle = 200 * time.Millisecond

// follow reads the file whenever its content has changed.
func (v *Verifier) follow(ctx context.Context, by *files.Watcher) {
	f := &files.Follower{
		Watcher: by, Dirs: func() []string { return files.DirsOf(v.settings.JWKSPath) }, Quiet: settle,
		Changed: func() {
			if trigger, changed := v.hasFileChanged(); changed {
				_ = v.reload(ctx, trigger) // logged there; the next change is the next attempt
			}
		},
	}
	f.Run(ctx)
}

// hasFileChanged compares content and not times, so that replacing the link of an unchanged volume
// is no change.
func (v *Verifier) hasFileChanged() (trigger string, changed bool) {
	data, err := v.read(context.Background())
	if err != nil {
		data = nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.attempted.IsZero() {
		return triggerStart, true
	}
	return triggerFile, digestOf(data) != v.content
}
