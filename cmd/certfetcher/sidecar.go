package main

import (
	"context"
	"errors"
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

	"github.com/certfetcher/certfetcher/internal/config"
	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/metrics"
	"github.com/certfetcher/certfetcher/internal/mtls"
	"github.com/certfetcher/certfetcher/internal/notify"
	"github.com/certfetcher/certfetcher/internal/program"
	"github.com/certfetcher/certfetcher/internal/renew"
)

// endGrace is how long the end waits for what is under way. What then is not finished is cut off, which a
// volume survives at any moment.
const endGrace = 700 * time.Millisecond

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
	cleanup    *time.Timer // disturbs when something on the volume has to go; nil before the first publication
	owed       string      // the reason of a publication that is committed but not complete; empty: there is none
}

// runSidecar fetches as in init mode and then renews until ctx ends. An error is that of the first
// fetch or of what is set up before it.
func runSidecar(ctx context.Context, s setup) error {
	c := &sidecar{
		config: s.config, log: s.log, metrics: metrics.New(program.Version(), time.Now),
		requests: make(chan string, 1), disturbed: make(chan struct{}, 1),
	}
	c.expectCounts(s.notify)
	s.notify.Observe = c.notified
	c.dispatcher = notify.NewDispatcher(s.notify)

	var background sync.WaitGroup
	background.Go(func() { notify.ReapOrphans(ctx) })
	if err := c.serveHealth(ctx, &background); err != nil {
		return err
	}
	c.renewOnHangup(ctx)
	if merge, ok := s.notify.Prepare.(*merging); ok {
		// The loop tells of it, as of all else, so that the newest comes last.
		merge.changed = func() { c.merged.Store(true); c.disturb() }
	}
	c.enroller = &enroll.Enroller{
		Config: s.config, Identity: c.followIdentity(ctx, s.identity), UserAgent: userAgent(), Journal: s.notify.Notifies(),
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
	if outcome.Requested != "" {
		c.request("the configuration changed")
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

// expectCounts has the metrics begin with all that may be counted.
func (c *sidecar) expectCounts(told notify.Config) {
	var stages []string
	for _, stage := range enroll.Stages() {
		stages = append(stages, stage.String())
	}
	c.metrics.Expect(stages, told.Kinds(), []string{string(notify.OutcomeSuccess), string(notify.OutcomeFailure)})
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
		hint := ""
		if errors.Is(err, syscall.EADDRINUSE) {
			hint = ": another process of this pod has the port, a second sidecar perhaps: give another one, or off"
		}
		fault := config.NewFault("HEALTH_ADDR", "cannot be used: "+err.Error()+hint)
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
	files := tlsFiles(c.config.TLS)
	replaced := func(next *mtls.Identity, err error) {
		c.metrics.CountIdentityReload(err)
		if err == nil {
			c.metrics.SetIdentity(next.Certificate.Leaf)
			warn(c.log, next)
		}
	}
	watcher, err := mtls.Watch(ctx, files, initial, c.log, func(next *mtls.Identity, err error) {
		replaced(next, err)
		if err == nil && c.failing.Load() {
			c.request("new mutual TLS identity") // it may be what was lacking
		}
	})
	if err != nil {
		c.log.Warn("the mutual TLS files cannot be watched, and are read before each request instead", "error", err.Error())
		return mtls.WithoutWatcher(files, initial, c.log, replaced)
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
			c.log.Warn("published files that vanish are not put back before the next renewal, and RENEW_TRIGGER_FILE is not seen; SIGHUP and POST /renew still renew now", "error", err.Error())
		}
	})
}
