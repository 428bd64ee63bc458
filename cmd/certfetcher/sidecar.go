package main

import (
	"context"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/certfetcher/certfetcher/internal/buildinfo"
	"github.com/certfetcher/certfetcher/internal/config"
	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/metrics"
	"github.com/certfetcher/certfetcher/internal/mtls"
	"github.com/certfetcher/certfetcher/internal/notify"
	"github.com/certfetcher/certfetcher/internal/renew"
)

// endGrace is how long the end waits for what is under way. What then is not finished is cut off, which a
// volume survives at any moment.
const endGrace = 700 * time.Millisecond

// The reasons of a publication, as the application is told.
const (
	reasonEnrolled = "enrolled"
	reasonRenewed  = "renewed"
	reasonRestored = "restored"
	reasonPruned   = "pruned"
)

// sidecar is what renews: it joins the parts that know nothing of one another.
type sidecar struct {
	config     *config.Fetcher
	log        *slog.Logger
	enroller   *enroll.Enroller
	metrics    *metrics.Metrics
	dispatcher *notify.Dispatcher
	requests   chan string // room for one: more say nothing more
	disturbed  chan struct{}
	failing    atomic.Bool // the last attempt to renew failed
	merged     atomic.Bool // truststores have changed at a start at which nothing was published
	overlap    *time.Timer // disturbs when trusted certificates have to go; nil before the first publication
	owed       string      // the reason of a publication that is committed but not complete; empty: there is none
}

// runSidecar fetches as in init mode and then renews until a signal ends it. An error is that of the first
// fetch or of what is set up before it.
func runSidecar(s setup) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	// Nobody reading the log any more is no reason to end. To be notified, and not to ignore it, as the latter
	// is handed down to the commands that are run.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	c := &sidecar{
		config: s.config, log: s.log, metrics: metrics.New(buildinfo.Version(), time.Now),
		requests: make(chan string, 1), disturbed: make(chan struct{}, 1),
	}
	s.notify.Observe = c.notified
	c.dispatcher = notify.NewDispatcher(s.notify)

	var background sync.WaitGroup
	if err := c.serveHealth(ctx, &background); err != nil {
		return err
	}
	c.renewOnHangup(ctx)
	if merge, ok := s.notify.Prepare.(*merging); ok {
		// The loop tells of it, as of all else, so that the newest comes last.
		merge.changed = func() { c.merged.Store(true); c.disturb() }
	}
	c.enroller = &enroll.Enroller{
		Config: s.config, Identity: c.followIdentity(ctx, s.identity), UserAgent: userAgent(), Journal: s.notify.Tells(),
		Log: s.log, Now: time.Now,
	}
	outcome, err := c.enroller.Run(ctx)
	if err != nil {
		return err
	}
	current := c.published(outcome, reasonEnrolled)
	if !outcome.Changed {
		c.kept(outcome)
	}
	background.Go(func() { c.dispatcher.Run(ctx) })
	c.watchFiles(ctx, &background, outcome.Files)
	debug.FreeOSMemory()
	loop := &renew.Loop{
		Policy:  renew.Policy{At: s.config.Sidecar.RenewAt, Before: s.config.Sidecar.RenewBefore, Seed: s.config.Sidecar.Seed},
		Renewer: c, Requests: c.requests, Disturbed: c.disturbed, Observe: c.observe, Log: s.log,
	}
	background.Go(func() { loop.Run(ctx, current) })

	<-ctx.Done()
	ended := make(chan struct{})
	go func() { background.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(endGrace):
	}
	s.log.Info("ended by a signal")
	return nil
}

// kept begins with a certificate that was on the volume. The application is told of it only when a process before
// this one did not get as far.
func (c *sidecar) kept(outcome enroll.Outcome) {
	event := c.event(outcome, reasonRestored)
	if event.Kept = !outcome.Untold; outcome.Untold {
		c.log.Info("nobody was told of what is on the volume, as its publication was interrupted; telling now")
	}
	c.dispatcher.Dispatch(event)
}

// Obtain is one attempt of the loop.
func (c *sidecar) Obtain(ctx context.Context, reason string) (publish func() (renew.Certificate, error), err error) {
	c.log.Info("renewing", "because", reason)
	// A renewal needs some megabytes for some milliseconds, once in days or months.
	defer debug.FreeOSMemory()
	obtained, err := c.enroller.Obtain(ctx)
	if err != nil {
		return nil, c.failed(ctx, err)
	}
	return func() (renew.Certificate, error) {
		defer debug.FreeOSMemory()
		outcome, err := c.enroller.Publish(obtained)
		if err != nil && !enroll.Committed(err) {
			return renew.Certificate{}, c.failed(ctx, err)
		}
		c.metrics.CountRenewal(outcome.How)
		c.owed = reasonRenewed
		if outcome.How == enroll.Enrolled {
			c.owed = reasonEnrolled
		}
		current := c.published(outcome, c.owed)
		if err != nil {
			c.log.Error("the new certificate is the one on the volume, but its files are not complete; completing them", "reason", err.Error())
			c.metrics.SetVolume(err)
			c.disturb()
			return current, nil
		}
		c.owed = ""
		return current, nil
	}, nil
}

// failed counts a failed attempt, and tells the loop what it means.
func (c *sidecar) failed(ctx context.Context, err error) error {
	stage := enroll.StageOf(err).String()
	if ctx.Err() == nil {
		c.metrics.CountFailure(stage)
	}
	permanent, after := enroll.Retry(err)
	return &renew.Failure{Hint: renew.Hint{Permanent: permanent, RetryAfter: after}, Stage: stage, Err: err}
}

// Restore puts published files back, completes a publication that failed after its commit, and takes away trusted
// certificates that were kept long enough.
func (c *sidecar) Restore() (current renew.Certificate, changed bool, err error) {
	outcome, err := c.enroller.Restore()
	c.metrics.SetVolume(err)
	switch {
	case err != nil:
		return renew.Certificate{}, false, err
	case outcome.Changed:
		return c.restored(outcome), true, nil
	case c.merged.Swap(false):
		if outcome.Number, err = c.enroller.Owe(); err == nil {
			c.dispatcher.Dispatch(c.event(outcome, reasonRestored))
		}
	default:
		err = c.prune()
	}
	return renew.Certificate{}, false, err
}

func (c *sidecar) restored(outcome enroll.Outcome) renew.Certificate {
	reason := c.owed
	if c.owed = ""; reason != "" {
		c.log.Info("the new files are complete", "path", c.config.Output.Dir, "files", outcome.Files)
	} else {
		reason = reasonRestored
		c.metrics.CountRestoration()
		c.log.Warn("published files had vanished or changed, they are put back", "path", c.config.Output.Dir, "differences", outcome.Differences)
	}
	return c.published(outcome, reason)
}

// prune takes away trusted certificates whose overlap is over, if there are any.
func (c *sidecar) prune() error {
	outcome, err := c.enroller.Prune()
	switch {
	case enroll.Committed(err):
		c.owed = reasonPruned
	case outcome.Changed:
		c.published(outcome, reasonPruned)
	}
	return err
}

// published tells everybody who wants to know, and the loop when the certificate was had.
func (c *sidecar) published(outcome enroll.Outcome, reason string) renew.Certificate {
	leaf := outcome.Bundle.Chain[0]
	c.metrics.SetCertificate(leaf)
	c.metrics.SetVolume(nil)
	current := renew.Certificate{NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter}
	if outcome.How != enroll.Kept {
		current.Obtained = time.Now()
	}
	if outcome.Changed {
		c.dispatcher.Dispatch(c.event(outcome, reason))
	}
	if end := c.enroller.OverlapEnd(); !end.IsZero() {
		if c.overlap != nil {
			c.overlap.Stop()
		}
		c.overlap = time.AfterFunc(time.Until(end), c.disturb)
	}
	return current
}

// event is what the application is told of what is on the volume.
func (c *sidecar) event(outcome enroll.Outcome, reason string) notify.Event {
	event := notify.NewEvent(reason, c.config.Output.Dir, outcome.Files, outcome.Bundle.Chain[0], outcome.Bundle.Trusted)
	event.Told = c.told(outcome.Number)
	return event
}

// told notes that the application knows of a publication.
func (c *sidecar) told(number int) func() {
	return func() {
		if err := c.enroller.Told(number); err != nil {
			c.log.Warn("the application was told, but that cannot be noted on the volume: the next start tells it again", "error", err.Error())
		}
	}
}

func (c *sidecar) notified(kind string, outcome notify.Outcome) {
	c.metrics.CountNotification(kind, string(outcome))
	if kind == notify.KindVerify {
		c.metrics.SetServed(outcome == notify.OutcomeSuccess)
	}
}

func (c *sidecar) observe(status renew.Status) {
	c.failing.Store(status.Failures > 0)
	c.metrics.SetPlan(status.Due, status.Next, status.Failures)
}

// request asks for a renewal now.
func (c *sidecar) request(reason string) {
	select {
	case c.requests <- reason:
	default:
	}
}

// disturb has the loop look at the published files.
func (c *sidecar) disturb() {
	select {
	case c.disturbed <- struct{}{}:
	default:
	}
}

// serveHealth listens before anything is fetched: an address that is taken must not cost a certificate, and
// a kubelet may ask meanwhile.
func (c *sidecar) serveHealth(ctx context.Context, background *sync.WaitGroup) error {
	address := c.config.Sidecar.HealthAddress
	if address == "" {
		return nil
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		fault := config.NewFault("HEALTH_ADDR", "cannot be used: "+err.Error())
		return &enroll.Error{Stage: enroll.StageClientConfiguration, Err: fault}
	}
	c.log.Info("serving probes and metrics", "address", listener.Addr().String())
	background.Go(func() {
		if err := metrics.Serve(ctx, listener, c.metrics.Handler(func() { c.request("POST /renew") }), c.log); err != nil {
			c.log.Error("probes and metrics are no longer served", "error", err.Error())
		}
	})
	return nil
}

func (c *sidecar) renewOnHangup(ctx context.Context) {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-hangup:
				c.request("SIGHUP")
			}
		}
	}()
}

// followIdentity returns what gives the identity for the next request.
func (c *sidecar) followIdentity(ctx context.Context, initial *mtls.Identity) func() *mtls.Identity {
	c.metrics.SetIdentity(initial.Certificate.Leaf)
	watcher, err := mtls.Watch(ctx, tlsFiles(c.config.TLS), initial, c.log, func(next *mtls.Identity, err error) {
		c.metrics.CountIdentityReload(err)
		if err != nil {
			return
		}
		c.metrics.SetIdentity(next.Certificate.Leaf)
		warn(c.log, next)
		if c.failing.Load() {
			c.request("new mutual TLS identity") // it may be what was lacking
		}
	})
	if err != nil {
		c.log.Warn("a replacement of the mutual TLS files will not be seen", "error", err.Error())
		return func() *mtls.Identity { return initial }
	}
	return watcher.Current
}

// watchFiles has published files put back, and listens to the trigger file.
func (c *sidecar) watchFiles(ctx context.Context, background *sync.WaitGroup, paths []string) {
	var names []string
	for _, path := range paths {
		names = append(names, filepath.Base(path))
	}
	watch := &renew.Watch{
		Dir: c.config.Output.Dir, Names: names, Trigger: c.config.Sidecar.TriggerFile,
		Disturbed: c.disturbed, Requests: c.requests, Log: c.log,
	}
	background.Go(func() {
		if err := watch.Run(ctx); err != nil {
			c.log.Warn("published files that vanish will not be put back, and RENEW_TRIGGER_FILE will not be seen", "error", err.Error())
		}
	})
}
