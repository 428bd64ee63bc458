package sidecar

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/notify"
	"github.com/certfetcher/certfetcher/output"
)

// certificates is a CertService and a volume in memory: each certificate lives for ten days.
type certificates struct {
	mu        sync.Mutex
	serial    int64
	outcome   enroll.Outcome // of Restore; its Bundle is what is on the volume
	start     enroll.Outcome // of Run
	obtainErr error
	publishes []error // of Publish, one after the other; none: nil
	broken    error   // of Restore
	pruneAt   time.Time
	pending   map[int]bool // publications that the application was not notified of
	number    int
}

func (c *certificates) issue() output.Bundle {
	c.serial++
	now := time.Now()
	leaf := &x509.Certificate{SerialNumber: big.NewInt(c.serial), NotBefore: now, NotAfter: now.Add(10 * day)}
	return output.Bundle{Chain: []*x509.Certificate{leaf}}
}

func (c *certificates) publish(bundle output.Bundle, how string) enroll.Outcome {
	c.number++
	c.pending[c.number] = true
	c.outcome.Bundle = bundle
	return enroll.Outcome{Bundle: bundle, How: how, Changed: true, Number: c.number}
}

func next(errs *[]error) (err error) {
	if len(*errs) > 0 {
		err, *errs = (*errs)[0], (*errs)[1:]
	}
	return err
}

func (c *certificates) Run(context.Context) (enroll.Outcome, error) { return c.start, nil }

func (c *certificates) Obtain(context.Context) (enroll.Obtained, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return enroll.Obtained{}, c.obtainErr
}

func (c *certificates) Publish(enroll.Obtained) (enroll.Outcome, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := next(&c.publishes)
	if err != nil && !enroll.Committed(err) {
		return enroll.Outcome{}, err
	}
	return c.publish(c.issue(), enroll.Updated), err
}

func (c *certificates) Restore() (enroll.Outcome, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken != nil {
		return enroll.Outcome{}, c.broken
	}
	outcome := c.outcome
	outcome.How = enroll.Kept
	c.outcome.Changed, c.outcome.Adopted = false, false
	return outcome, nil
}

func (c *certificates) Prune() (enroll.Outcome, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pruneAt.IsZero() || time.Now().Before(c.pruneAt) {
		return enroll.Outcome{}, nil
	}
	c.pruneAt = time.Time{}
	return c.publish(c.outcome.Bundle, enroll.Kept), nil
}

func (c *certificates) CleanupDue() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pruneAt
}

func (c *certificates) MarkPending() (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.number++
	c.pending[c.number] = true
	return c.number, nil
}

func (c *certificates) MarkNotified(number int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pending, number)
	return nil
}

// application notes what it is notified of, as "reason serial".
type application struct {
	mu   sync.Mutex
	told []string
	err  error
}

func (*application) Kind() string { return notify.KindExec }

func (a *application) Notify(_ context.Context, event notify.Event) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.told = append(a.told, fmt.Sprintf("%s %s", event.Reason, event.Serial))
	return a.err
}

// kept is a sidecar that has begun with a certificate on the volume, renewed after half its life, in a bubble of fake
// time.
type kept struct {
	*Sidecar
	*certificates
	app *application
	log bytes.Buffer // read it while nothing runs
}

// begin runs a sidecar, and calls test once it waits.
func begin(t *testing.T, change func(k *kept), test func(k *kept)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		k := &kept{certificates: &certificates{pending: map[int]bool{}}, app: &application{}}
		k.outcome.Bundle = k.issue()
		k.start = enroll.Outcome{Bundle: k.outcome.Bundle, How: enroll.Kept}
		k.Sidecar = New(Config{
			Settings: Settings{Policy: Policy{At: 0.5, Seed: "seed"}}, Dir: "/volume", Certificates: k.certificates,
			Notify: notify.Config{Notifiers: []notify.Notifier{k.app}, Log: slog.New(slog.DiscardHandler)},
			Log:    slog.New(slog.NewTextHandler(&k.log, nil)),
		})
		if change != nil {
			change(k)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var background sync.WaitGroup
		k.keepValid(ctx, &background, k.start)
		synctest.Wait()
		test(k)
		cancel()
		background.Wait()
	})
}

func (k *kept) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// notified is what the application was notified of so far.
func (k *kept) notified() []string {
	k.app.mu.Lock()
	defer k.app.mu.Unlock()
	return slices.Clone(k.app.told)
}

// alter changes the application, the service or the volume while the sidecar runs.
func (k *kept) alter(change func()) {
	k.app.mu.Lock()
	defer k.app.mu.Unlock()
	k.mu.Lock()
	defer k.mu.Unlock()
	change()
}

// stillPending counts the publications that the application was not notified of.
func (k *kept) stillPending() (count int) {
	k.alter(func() { count = len(k.pending) })
	return count
}

func (k *kept) metric(t *testing.T, name string) string {
	t.Helper()
	var text bytes.Buffer
	k.metrics.Write(&text)
	_, rest, ok := strings.Cut(text.String(), "\n"+name+" ")
	require.True(t, ok, name)
	value, _, _ := strings.Cut(rest, "\n")
	return value
}

func TestSidecar_certificateThatWasThere_isNotNotifiedOf(t *testing.T) {
	begin(t, nil, func(k *kept) {
		k.pass(day)
		assert.Empty(t, k.notified())
	})
}

func TestSidecar_notificationThatThePreviousRunOwed_isMadeAtTheStart(t *testing.T) {
	begin(t, func(k *kept) { k.start.Pending, k.start.Number = true, 7; k.pending[7] = true }, func(k *kept) {
		assert.Equal(t, []string{"restored 01"}, k.notified())
		assert.Zero(t, k.stillPending())
	})
}

func TestSidecar_renewal_isPublishedCountedAndNotified(t *testing.T) {
	begin(t, nil, func(k *kept) {
		k.pass(5 * day)
		assert.Equal(t, []string{"renewed 02"}, k.notified())
		assert.Zero(t, k.stillPending())
		assert.Equal(t, "1", k.metric(t, `certfetcher_renewals_total{outcome="updated"}`))
		k.pass(5 * day)
		assert.Equal(t, []string{"renewed 02", "renewed 03"}, k.notified())
	})
}

func TestSidecar_applicationThatFails_isNotifiedAgain_andPendingMeanwhile(t *testing.T) {
	begin(t, func(k *kept) { k.app.err = errors.New("not now") }, func(k *kept) {
		k.pass(5 * day)
		assert.Greater(t, len(k.notified()), 1)
		assert.Equal(t, 1, k.stillPending())
		k.alter(func() { k.app.err = nil })
		k.pass(10 * time.Minute)
		assert.Zero(t, k.stillPending())
	})
}

func TestSidecar_configurationThatChanged_renewsAtOnce(t *testing.T) {
	begin(t, func(k *kept) { k.start.Requested = "SANS asks for another name" }, func(k *kept) {
		assert.Equal(t, []string{"renewed 02"}, k.notified())
	})
}

func TestSidecar_failedRenewal_isCountedByStage_andFollowedByAnother(t *testing.T) {
	failure := &enroll.Error{Stage: enroll.StageConnection, Err: errors.New("connection refused")}
	begin(t, func(k *kept) { k.obtainErr = failure }, func(k *kept) {
		k.pass(5 * day)
		assert.NotEqual(t, "0", k.metric(t, `certfetcher_renewal_failures_total{stage="connection"}`))
		assert.True(t, k.failing.Load())
		assert.Empty(t, k.notified())
		k.alter(func() { k.obtainErr = nil })
		k.pass(time.Hour)
		assert.Equal(t, []string{"renewed 02"}, k.notified())
		assert.False(t, k.failing.Load())
	})
}

// A publication that fails after its commit counts: it is completed, and the application is notified of it.
func TestSidecar_publicationThatIsNotComplete_isCompleted(t *testing.T) {
	incomplete := &enroll.Error{Stage: enroll.StageFile, Err: &output.IncompleteError{Err: errors.New("no space")}}
	begin(t, func(k *kept) {
		k.publishes = []error{incomplete}
		k.broken = incomplete
	}, func(k *kept) {
		k.pass(5 * day)
		assert.Equal(t, "1", k.metric(t, `certfetcher_renewals_total{outcome="updated"}`))
		assert.Error(t, k.metrics.Ready(), "files are missing")
		k.alter(func() { k.broken, k.outcome.Changed = nil, true })
		k.pass(time.Minute)
		assert.NoError(t, k.metrics.Ready())
		assert.Equal(t, "renewed 02", k.notified()[len(k.notified())-1])
		assert.Equal(t, "0", k.metric(t, "certfetcher_restorations_total"), "another process changed nothing")
		assert.Contains(t, k.log.String(), "the new files are complete")
	})
}

func TestSidecar_filesThatChanged_arePutBack(t *testing.T) {
	begin(t, nil, func(k *kept) {
		k.alter(func() { k.outcome.Changed = true })
		k.disturb()
		k.pass(time.Second)
		assert.Equal(t, []string{"restored 01"}, k.notified())
		assert.Equal(t, "1", k.metric(t, "certfetcher_restorations_total"))
	})
}

func TestSidecar_newerCertificateOfAnotherProcess_staysAndIsNotified(t *testing.T) {
	begin(t, nil, func(k *kept) {
		k.alter(func() { k.outcome.Bundle, k.outcome.Changed, k.outcome.Adopted = k.issue(), true, true })
		k.disturb()
		k.pass(time.Second)
		assert.Equal(t, []string{"restored 02"}, k.notified())
		assert.Equal(t, "0", k.metric(t, "certfetcher_restorations_total"))
	})
}

func TestSidecar_trustedCertificatesWhoseTimeIsOver_arePruned(t *testing.T) {
	begin(t, func(k *kept) { k.pruneAt = time.Now().Add(day) }, func(k *kept) {
		k.pass(day - time.Second)
		assert.Empty(t, k.notified())
		k.pass(2 * time.Second)
		assert.Equal(t, []string{"pruned 01"}, k.notified())
	})
}

func TestSidecar_truststoresMergedAtTheStart_areNotifiedOf(t *testing.T) {
	begin(t, nil, func(k *kept) {
		k.truststoresChanged()
		k.pass(time.Second)
		assert.Equal(t, []string{"restored 01"}, k.notified())
		assert.Zero(t, k.stillPending())
	})
}
