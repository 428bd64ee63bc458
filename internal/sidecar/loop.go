package sidecar

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/internal/requestid"
)

// recheck is how often decisions are made again at the latest: timers stand still while a machine
// is suspended, and know nothing of a clock that was set.
const recheck = time.Minute

// leastLife is for how long a certificate that was just obtained is left alone.
const leastLife = 50 * time.Millisecond

// Renewer does what the Loop decides. It logs its successes itself.
type Renewer interface {
	// Obtain makes one attempt to get a certificate, because of the reason. It runs
	// on a goroutine of its own, so that a request that hangs does not prevent files
	// from being restored; one at a time. What it returns is called on the Loop's
	// goroutine, and publishes the certificate; Obtained need not be set. Nothing
	// has changed when either fails. The errors are those of package enroll.
	Obtain(ctx context.Context, reason string) (publish func() (Certificate, error), err error)
	// Restore puts back published files that vanished or changed. changed tells whether any had,
	// and current is then what is published: another certificate when another process has
	// published a newer one. It is called on the Loop's goroutine.
	Restore() (current Certificate, changed bool, err error)
}

// Status is what the Loop is up to, for those who watch it.
type Status struct {
	Due      time.Time // when the certificate is, or was, to be renewed
	Next     time.Time // when the next attempt will be made
	Failures int       // failed attempts since the last success
}

// Loop renews one certificate for as long as it runs.
type Loop struct {
	Policy  Policy
	Renewer Renewer
	// Requests bring the reasons of those who want a renewal at once.
	Requests <-chan string
	// Disturbed says that published files may have been touched.
	Disturbed <-chan struct{}
	// Observe, unless nil, is called at every change of Status, from the Loop's goroutine.
	Observe func(Status)
	Clock   func() time.Time // nil: time.Now
	Log     *slog.Logger
}

// reasonDue is the reason of the renewals that no one requested.
const reasonDue = "due"

// Run keeps the certificate valid until ctx ends. A failed attempt is followed by another,
// whatever the error: it gives up on nothing.
func (l *Loop) Run(ctx context.Context, current Certificate) {
	if l.Clock == nil {
		l.Clock = time.Now
	}
	r := &run{Loop: l, ctx: ctx}
	r.adopt(current)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		requests := l.Requests
		if r.attempt != nil {
			requests = nil // they wait for their turn
		}
		select {
		case <-ctx.Done():
		case <-timer.C:
			r.tick()
		case reason := <-requests:
			r.begin(reason)
		case o := <-r.attempt:
			r.end(o)
		case <-l.Disturbed:
			r.restoreSoon()
		}
		timer.Reset(max(0, min(recheck, r.untilAttempt(), r.untilRestore())))
	}
	if r.attempt != nil {
		r.end(<-r.attempt)
	}
}

// run is the state of a Loop that runs.
type run struct {
	*Loop
	Status
	ctx     context.Context
	current Certificate
	since   time.Time     // of the last failure; from here on the wait counts
	attempt chan obtained // brings how the attempt that is under way ends; nil: none is
	because string        // the reason of that attempt
	other   bool          // a newer certificate came from elsewhere during it

	restoreFailures int
	restoreNext     time.Time // zero: nothing to put back
	pace            pace
}

// obtained is what Renewer.Obtain returns.
type obtained struct {
	publish func() (Certificate, error)
	err     error
}

// now is the wall clock's time: without the monotonic
// reading, which stands still with a suspended machine.
func (r *run) now() time.Time { return r.Clock().Round(0) }

func (r *run) tick() {
	now := r.now()
	if r.Failures > 0 && now.Before(r.since) {
		// The clock was set back: the wait begins again, instead of lasting by as much longer.
		r.Next, r.since = now.Add(r.Next.Sub(r.since)), now
		r.observe()
	}
	// Further away than any wait there is: the clock was set back.
	if !r.restoreNext.IsZero() && (!now.Before(r.restoreNext) || r.restoreNext.Sub(now) > longestExpired) {
		r.restore()
	}
	if r.attempt == nil && !now.Before(r.Next) {
		r.begin(reasonDue)
	}
}

func (r *run) begin(reason string) {
	r.attempt, r.because, r.other = make(chan obtained, 1), reason, false
	go func(ended chan<- obtained) {
		publish, err := r.Renewer.Obtain(r.ctx, reason)
		ended <- obtained{publish, err}
	}(r.attempt)
}

func (r *run) end(o obtained) {
	r.attempt = nil
	err := o.err
	var renewed Certificate
	if err == nil {
		renewed, err = o.publish()
	}
	if r.ctx.Err() != nil && err != nil {
		return
	}
	if err == nil {
		now := r.now()
		renewed.Obtained = now
		r.adopt(renewed)
		if soonest := now.Add(leastLife); r.Next.Before(soonest) {
			r.Next = soonest // whatever a CA issues, it is not asked without a pause
		}
		return
	}
	if r.other && r.because == reasonDue {
		return // nothing is due any more
	}
	now := r.now()
	r.Failures++
	r.since, r.Next = now, now.Add(RetryWait(r.Failures, enroll.HintOf(err), r.current, now, rand.Float64))
	r.observe()
	attributes := []any{"error", err.Error(), "stage", enroll.StageOf(err).String(), "try",
		r.Failures, "next_in", r.Next.Sub(now), "not_after", r.current.NotAfter.UTC()}
	if id := enroll.RequestIDOf(err); id != "" {
		attributes = append(attributes, requestid.LogKey, id)
	}
	if r.current.NotAfter.Before(now) {
		r.Log.Error("renewing failed, and the certificate has expired; trying again", attributes...)
		return
	}
	r.Log.Warn("renewing failed, the certificate stays in use; trying again", attributes...)
}

func (r *run) adopt(c Certificate) {
	r.current, r.other = c, r.attempt != nil
	r.Due = r.Policy.Due(c)
	r.Next, r.Failures = r.Due, 0
	r.observe()
	r.Log.Info("the next renewal is planned", "due", r.Due.UTC(), "not_after", c.NotAfter.UTC())
}

func (r *run) observe() {
	if r.Observe != nil {
		r.Observe(r.Status)
	}
}

// restoreSoon puts files back, at once unless that has just been done.
func (r *run) restoreSoon() {
	if next := r.pace.next(); r.now().Before(next) {
		r.restoreNext = next
		return
	}
	r.restore()
}

// restore puts files back, and where that fails tries again,
// as a full disk does not say when it has room.
func (r *run) restore() {
	current, changed, err := r.Renewer.Restore()
	if err == nil {
		r.restoreFailures, r.restoreNext = 0, time.Time{}
		if !changed {
			return
		}
		if r.pace.restored(r.now()) {
			r.Log.Warn("published files change again and again right after they were restored, "+
				"so they are restored less often: "+
				"does a hook of the application, or another process, write to the volume?", "pause", r.pace.pause())
		}
		if !current.NotAfter.Equal(r.current.NotAfter) || !current.NotBefore.Equal(r.current.NotBefore) {
			r.adopt(current)
		}
		return
	}
	r.restoreFailures++
	pause := between(shortestWait, min(longestExpired, shortestWait<<min(r.restoreFailures, 20)), rand.Float64)
	r.restoreNext = r.now().Add(pause)
	r.Log.Error("restoring published files failed; trying again", "error", err.Error(), "try",
		r.restoreFailures, "next_in", pause)
}

func (r *run) untilAttempt() time.Duration {
	if r.attempt != nil {
		return recheck
	}
	return r.Next.Sub(r.now())
}

func (r *run) untilRestore() time.Duration {
	if r.restoreNext.IsZero() {
		return recheck
	}
	return r.restoreNext.Sub(r.now())
}

const (
	// settle is how long published files must be left alone before the Loop looks at them: most
	// changes consist of several, our own publications among them.
	settle = 100 * time.Millisecond
)

// reasonTrigger is the reason of the renewals that the trigger file asks for.
const reasonTrigger = "trigger file"

// Watch turns changes of files into what a Loop listens to. The kernel tells it, also of
// directories that are removed and made again. Only whether one above them was renamed has to be
// looked at, once a minute, or everything where it gives no watcher.
type Watch struct {
	// Dir is where files are published, and Names are theirs, none for
	// any. Of anything else in Dir, only the link ..data of the symlink
	// layout matters, and what is in the directory that it points to.
	Dir   string
	Names []string
	// Trigger is the path of a file that asks for a renewal and is removed then; empty: none.
	Trigger string

	Watcher   *files.Watcher
	Disturbed chan<- struct{} // has room for one
	Requests  chan<- string   // has room for one
	Log       *slog.Logger

	recheck    time.Duration // 0: that of files.Follower
	generation string        // the directory that ..data points to; empty: there is none
}

// dataLink is the link that the symlink layout swaps.
const dataLink = "..data"

// Run watches until ctx ends.
func (w *Watch) Run(ctx context.Context) {
	f := &files.Follower{
		Watcher: w.Watcher, Dirs: w.directories, Look: w.look, Moved: func() { w.takeTrigger(false) }, Quiet: settle,
		Recheck: w.recheck, Changed: func() { offer(w.Disturbed, struct{}{}) },
	}
	f.Run(ctx)
}

// offer does not wait: where something is waiting to be looked at already, it will be seen then.
func offer[T any](to chan<- T, what T) {
	select {
	case to <- what:
	default:
	}
}

// look tells whether an event concerns published files, and
// whether a directory came, went or was swapped.
func (w *Watch) look(name string, created, removed bool) (changed, moved bool) {
	if name == w.Trigger && !removed {
		w.takeTrigger(created)
	}
	moved = above(name, w.Dir) || name != w.Trigger && above(name, w.Trigger)
	inDir, base := filepath.Dir(name) == w.Dir, filepath.Base(name)
	switch {
	case above(name, w.Dir), inDir && base == dataLink, name == w.generation:
		return true, true
	case inDir:
		return len(w.Names) == 0 || slices.Contains(w.Names, base), moved
	}
	return filepath.Dir(name) == w.generation, moved
}

// above tells whether name is path or a directory on the way to it.
func above(name, path string) bool {
	return path != "" && (name == path || strings.HasPrefix(path, strings.TrimSuffix(name, "/")+"/"))
}

// directories are those of the published files and the one of the trigger file, or the nearest
// above that exists, in which it would appear.
func (w *Watch) directories() []string {
	dirs := []string{files.NearestDir(w.Dir)}
	w.generation = ""
	if target, err := os.Readlink(filepath.Join(w.Dir, dataLink)); err == nil && filepath.Base(target) == target {
		w.generation = filepath.Join(w.Dir, target)
		dirs = append(dirs, w.generation)
	}
	if w.Trigger != "" {
		dirs = append(dirs, files.NearestDir(filepath.Dir(w.Trigger)))
	}
	return dirs
}

// takeTrigger removes the trigger file and asks for a renewal. One that cannot be removed counts
// when it has just appeared: else it would ask again and again.
func (w *Watch) takeTrigger(appeared bool) {
	if w.Trigger == "" {
		return
	}
	err := os.Remove(w.Trigger)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return
	case err != nil:
		if !appeared {
			return
		}
		w.Log.Warn("the trigger file cannot be removed", "path", w.Trigger, "error", err.Error())
	}
	w.Log.Info("the trigger file asks for a renewal", "path", w.Trigger)
	offer(w.Requests, reasonTrigger)
}
