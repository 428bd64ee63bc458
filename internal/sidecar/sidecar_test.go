package sidecar

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/notify"
	"github.com/certfetcher/certfetcher/output"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
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

// play is a sidecar with a certificate on the volume that it renews after half its life, in a bubble
// of fake time.
type play struct {
	*Sidecar
	*certificates
	app *application
}

var incomplete = &enroll.Error{Stage: enroll.StageFile,
	Err: &output.IncompleteError{Err: errors.New("no space")}}

// happenings are what scripts can say beside "start", "pass" and what else is a step.
var happenings = map[string]func(p *play){
	"the service fails": func(p *play) {
		p.obtainErr = &enroll.Error{Stage: enroll.StageConnection, Err: errors.New("connection refused")}
	},
	"the service works":     func(p *play) { p.obtainErr = nil },
	"the application fails": func(p *play) { p.app.err = errors.New("not now") },
	"the application works": func(p *play) { p.app.err = nil },
	"the previous run owed a notification": func(p *play) {
		p.start.Pending, p.start.Number, p.pending[7] = true, 7, true
	},
	"the configuration asks for another name": func(p *play) {
		p.start.Requested = "SANS asks for another name"
	},
	"a trusted certificate ends in a day": func(p *play) { p.pruneAt = time.Now().Add(day) },
	"the volume has no space after the next commit": func(p *play) {
		p.publishes, p.broken = []error{incomplete}, incomplete
	},
	"the volume has space again":        func(p *play) { p.broken, p.outcome.Changed = nil, true },
	"another process changes the files": func(p *play) { p.outcome.Changed = true },
	"another process publishes a newer certificate": func(p *play) {
		p.outcome.Bundle, p.outcome.Changed, p.outcome.Adopted = p.issue(), true, true
	},
}

// lock lets the race detector see that nothing else runs; it returns what unlocks.
func (p *play) lock() func() {
	p.app.mu.Lock()
	p.mu.Lock()
	return func() {
		p.mu.Unlock()
		p.app.mu.Unlock()
	}
}

// report says what was notified and logged since the last report, and how things are.
func (p *play) report() string {
	defer p.lock()()
	var text strings.Builder
	for n, told := range p.app.told {
		switch {
		case n == 0 || told != p.app.told[n-1]:
			text.WriteString("notified: " + told + "\n")
		case n == 1 || told != p.app.told[n-2]:
			text.WriteString("and again\n")
		}
	}
	p.app.told = nil
	var metrics bytes.Buffer
	p.metrics.Write(&metrics)
	for _, m := range counters.FindAllStringSubmatch(metrics.String(), -1) {
		if strings.Contains(m[1], "fail") {
			m[2] = "some" // how often a renewal was tried is chance
		}
		text.WriteString(m[1] + ": " + m[2] + "\n")
	}
	if len(p.pending) > 0 {
		fmt.Fprintf(&text, "pending: %d\n", len(p.pending))
	}
	if p.failing.Load() {
		text.WriteString("failing\n")
	}
	if err := p.metrics.Ready(); err != nil {
		fmt.Fprintf(&text, "not ready: %v\n", err)
	}
	return text.String()
}

// counters are those that are not zero.
var counters = regexp.MustCompile(
	`(?m)^certfetcher_((?:renewals|renewal_failures|restorations)_total\S*) ([1-9].*)$`)

func TestSidecar(t *testing.T) {
	golden.Play(t, "sidecar.txt", func(t *testing.T, _, commands string) (text string) {
		synctest.Test(t, func(t *testing.T) {
			var log bytes.Buffer
			p := &play{certificates: &certificates{pending: map[int]bool{}}, app: &application{}}
			p.outcome.Bundle = p.issue()
			p.start = enroll.Outcome{Bundle: p.outcome.Bundle, How: enroll.Kept}
			p.Sidecar = New(Config{
				Settings: Settings{Policy: Policy{At: 0.5, Seed: "seed"}}, Dir: "/volume",
				Certificates: p.certificates,
				Notify: notify.Config{Notifiers: []notify.Notifier{p.app},
					Log: slog.New(slog.DiscardHandler)},
				Log: slog.New(slog.NewTextHandler(&log, nil)),
			})
			ctx, cancel := context.WithCancel(t.Context())
			var background sync.WaitGroup
			for command := range strings.Lines(commands) {
				text += command
				command = strings.TrimSpace(command[1:])
				switch duration, pass := strings.CutPrefix(command, "pass "); {
				case pass:
					time.Sleep(fixture.Must(time.ParseDuration(duration)))
				case command == "start":
					p.keepValid(ctx, &background, p.start)
				case command == "the sidecar is told of a change":
					p.disturb()
				case command == "truststores were merged":
					p.truststoresChanged()
				default:
					require.Contains(t, happenings, command)
					unlock := p.lock()
					happenings[command](p)
					unlock()
					continue
				}
				synctest.Wait()
				text += p.report()
			}
			cancel()
			background.Wait()
			if strings.Contains(log.String(), "the new files are complete") {
				text += "logged: the new files are complete\n"
			}
		})
		return text
	})
}
