// Package sidecar keeps the certificate on a volume valid for as long as it runs, and the
// application notified of it. The Loop decides when to renew and when to restore published files;
// it knows neither HTTP nor files, but a Renewer, a channel of requests, a channel of disturbances
// and a clock. Sidecar is that Renewer: it joins the enrolment, the notifications and the metrics.
//
// All decisions are made on wall-clock time and made again at least once a minute, so that a
// machine that was suspended, or whose clock was set, renews as soon as it is due.
package sidecar

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
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

	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/internal/metrics"
	"github.com/certfetcher/certfetcher/internal/mtls"
	"github.com/certfetcher/certfetcher/internal/notify"
	"github.com/certfetcher/certfetcher/internal/program"
	"github.com/certfetcher/certfetcher/internal/truststore"
)

// EndGrace is how long Run waits at its end for what is under way. What then is not finished is
// cut off, which a volume survives at any moment.
const EndGrace = 700 * time.Millisecond

// Settings say whether to renew, when, and how the sidecar is asked and watched.
type Settings struct {
	Enabled bool // else all of it is without effect
	Policy
	TriggerFile   string // its appearance triggers a renewal; absolute, or empty for none
	HealthAddress string // of probes and metrics; empty: not served
}

// Config is what a Sidecar works with.
type Config struct {
	Settings
	Dir string // where files are published

	// Certificates gets certificates and publishes them.
	Certificates Certificates
	Notify       notify.Config
	// Merge is the post-processor's work, to be done after each publication; nil: none.
	Merge *truststore.Config
	// Identity is for requests to the CertService until its
	// files, IdentityFiles, change; see CurrentIdentity.
	Identity      *mtls.Identity
	IdentityFiles mtls.Files
	Log           *slog.Logger
}

// Certificates is what a Sidecar needs of *enroll.Enroller,
// which says what its methods do. Tests have another.
type Certificates interface {
	Run(ctx context.Context) (enroll.Outcome, error)
	Obtain(ctx context.Context) (enroll.Obtained, error)
	Publish(obtained enroll.Obtained) (enroll.Outcome, error)
	Restore() (enroll.Outcome, error)
	Prune() (enroll.Outcome, error)
	CleanupDue() time.Time
	MarkPending() (int, error)
	MarkNotified(number int) error
}

// Sidecar keeps the certificate on a volume valid, and the application notified of it. It joins
// the parts that know nothing of one another: enrolment, notifications, metrics, and the Loop.
type Sidecar struct {
	Config
	metrics    *metrics.Metrics
	dispatcher *notify.Dispatcher
	requests   chan string // has room for one: more say nothing more
	disturbed  chan struct{}
	identity   func() *mtls.Identity
	watcher    *files.Watcher
	failing    atomic.Bool // the last attempt to renew failed
	merged     atomic.Bool // truststores have changed at a start at which nothing was published
	cleanup    *time.Timer // disturbs when something on the volume has to go; nil before the first publication
	incomplete string      // the reason of a publication that is committed but not complete; empty: there is none
}

// New makes a Sidecar; Config.Certificates may be set until Run.
func New(c Config) *Sidecar {
	s := &Sidecar{
		Config: c, metrics: metrics.New(program.Version(), time.Now),
		requests: make(chan string, 1), disturbed: make(chan struct{}, 1),
	}
	if c.Merge != nil {
		c.Notify.Prepare = &merging{config: *c.Merge, log: c.Log, changed: s.truststoresChanged}
	}
	var stages []string
	for _, stage := range enroll.Stages() {
		stages = append(stages, stage.String())
	}
	s.metrics.Expect(stages, c.Notify.Kinds(), []string{string(notify.OutcomeSuccess), string(notify.OutcomeFailure)})
	c.Notify.Observe = s.countNotification
	s.dispatcher = notify.NewDispatcher(c.Notify)
	s.identity = func() *mtls.Identity { return c.Identity }
	return s
}

// CurrentIdentity is the identity for the next request to the CertService: its files are followed
// while Run runs. Only what Run calls may call it.
func (s *Sidecar) CurrentIdentity() *mtls.Identity { return s.identity() }

// Run makes sure that there is a certificate, as in init mode, and then renews it until ctx ends.
// An error is that of the first fetch or of what is set up before it, and of type *enroll.Error.
func (s *Sidecar) Run(ctx context.Context) error {
	var background sync.WaitGroup
	background.Go(func() { notify.ReapOrphans(ctx) })
	if err := s.serveHealth(ctx, &background); err != nil {
		return err
	}
	s.renewOnHangup(ctx)
	s.watcher = files.NewWatcher(ctx, s.Log)
	s.followIdentity(ctx)
	outcome, err := s.Certificates.Run(ctx)
	if err != nil {
		return err
	}
	program.ReportReady()
	s.watchFiles(ctx, &background, outcome.Files)
	s.keepValid(ctx, &background, outcome)

	<-ctx.Done()
	ended := make(chan struct{})
	go func() { background.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(EndGrace):
	}
	s.Log.Info("ended by a signal")
	return nil
}

// keepValid begins with what is on the volume, and has it renewed.
func (s *Sidecar) keepValid(ctx context.Context, background *sync.WaitGroup, outcome enroll.Outcome) {
	current := s.adopt(outcome, reasonEnrolled)
	if !outcome.Changed {
		s.notifyOfKept(outcome)
	}
	if outcome.Requested != "" {
		s.request("the configuration changed")
	}
	background.Go(func() { s.dispatcher.Run(ctx) })
	debug.FreeOSMemory()
	loop := &Loop{
		Policy: s.Policy, Renewer: s, Requests: s.requests, Disturbed: s.disturbed, Observe: s.observe, Log: s.Log,
	}
	background.Go(func() { loop.Run(ctx, current) })
}

// truststoresChanged has the application notified of truststores that were merged though nothing
// was published. The Loop does it, as all else, so that the newest comes last.
func (s *Sidecar) truststoresChanged() {
	s.merged.Store(true)
	s.disturb()
}

func (s *Sidecar) countNotification(kind string, outcome notify.Outcome) {
	s.metrics.CountNotification(kind, string(outcome))
	if kind == notify.KindVerify {
		s.metrics.SetServed(outcome == notify.OutcomeSuccess)
	}
}

func (s *Sidecar) observe(status Status) {
	s.failing.Store(status.Failures > 0)
	s.metrics.SetPlan(status.Due, status.Next, status.Failures)
}

// request asks for a renewal now.
func (s *Sidecar) request(reason string) { offer(s.requests, reason) }

// disturb has the loop look at the published files.
func (s *Sidecar) disturb() { offer(s.disturbed, struct{}{}) }

// serveHealth listens before anything is fetched: an address that is taken must not cost a
// certificate, and a kubelet may ask meanwhile.
func (s *Sidecar) serveHealth(ctx context.Context, background *sync.WaitGroup) error {
	address := s.HealthAddress
	if address == "" {
		return nil
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		hint := ""
		if errors.Is(err, syscall.EADDRINUSE) {
			hint = ": another process of this pod has the port, a second sidecar perhaps: give another one, or off"
		}
		return &enroll.Error{
			Stage: enroll.StageClientConfiguration, Err: fmt.Errorf("HEALTH_ADDR cannot be used: %w%s", err, hint),
		}
	}
	s.Log.Info("serving probes and metrics", "address", listener.Addr().String())
	background.Go(func() {
		if err := metrics.Serve(ctx, listener, s.metrics.Handler(func() { s.request("POST /renew") }),
			s.Log); err != nil {
			s.Log.Error("probes and metrics are no longer served", "error", err.Error())
		}
	})
	return nil
}

func (s *Sidecar) renewOnHangup(ctx context.Context) {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-hangup:
				s.request("SIGHUP")
			}
		}
	}()
}

// followIdentity follows the files of the identity.
func (s *Sidecar) followIdentity(ctx context.Context) {
	setIdentity := func(leaf *x509.Certificate) {
		if leaf != nil { // requests by CMP may do without
			s.metrics.SetIdentity(leaf)
		}
	}
	setIdentity(s.Identity.Certificate.Leaf)
	var looking atomic.Bool // for an attempt, which needs no other one after it
	watcher := mtls.Watch(ctx, s.watcher, s.IdentityFiles, s.Identity, s.Log, func(next *mtls.Identity, err error) {
		s.metrics.CountIdentityReload(err)
		if err != nil {
			return
		}
		setIdentity(next.Certificate.Leaf)
		next.LogWarnings(s.Log)
		if s.failing.Load() && !looking.Load() {
			s.request("new mutual TLS identity") // it may be what was missing
		}
	})
	s.identity = func() *mtls.Identity {
		looking.Store(true)
		defer looking.Store(false)
		return watcher.Fresh()
	}
}

// watchFiles has published files put back, and listens to the trigger file.
func (s *Sidecar) watchFiles(ctx context.Context, background *sync.WaitGroup, paths []string) {
	var names []string
	for _, path := range paths {
		names = append(names, filepath.Base(path))
	}
	watch := &Watch{
		Dir: s.Dir, Names: names, Trigger: s.TriggerFile,
		Watcher: s.watcher, Disturbed: s.disturbed, Requests: s.requests, Log: s.Log,
	}
	background.Go(func() { watch.Run(ctx) })
}
