package storm

import (
	"errors"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/certfetcher/certfetcher/client"
	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/sidecar"
)

// The kubelet's defaults. It starts a container that ended again at once, the next time after
// firstBackoff, and each time after twice as long, up to mostBackoff; one that ran for calmAfter
// begins at once again.
const (
	firstBackoff = 10 * time.Second
	mostBackoff  = 5 * time.Minute
	calmAfter    = 10 * time.Minute
)

// pod wants a certificate: its init container or its sidecar is certfetcher.
type pod struct {
	*storm
	number int

	certificate *sidecar.Certificate // of a sidecar; nil: an init container
	failures    int                  // of the sidecar
	backoff     time.Duration        // of the kubelet; 0: it has none
	started     time.Duration        // the process
	waits       *client.Waits        // of its call

	ready time.Duration // its first try that might succeed
	tried int           // since then
}

// start starts the process, or the sidecar's attempt.
func (p *pod) start() {
	p.started = p.now
	p.waits = client.NewWaits(p.settings.Retry, p.clock, p.random.Float64)
	p.waits.Reset()
	p.try()
}

func (p *pod) try() {
	if p.tried == 0 && p.now >= p.begin {
		p.ready = p.now
	}
	if p.now >= p.begin {
		p.tried++
	}
	p.tries++
	x := &exchange{pod: p.number, begun: p.now, patience: p.settings.Timeout, answered: p.answered,
		wasted: func() { p.wasted++ }}
	p.replicas[p.random.IntN(len(p.replicas))].connect(x)
}

func (p *pod) answered(err error) {
	if err == nil {
		p.left--
		p.done = append(p.done, p.now)
		return
	}
	p.failed(err)
}

// failed does what client.Try does, and then what ends the process or the sidecar's attempt.
func (p *pod) failed(err error) {
	var status *client.StatusError
	var asked time.Duration
	if errors.As(err, &status) {
		asked = status.RetryAfter
	}
	p.waits.Failed(asked)
	if wait := p.waits.NextBackOff(); wait != backoff.Stop {
		p.after(wait, p.try)
		return
	}
	if p.certificate != nil {
		p.failures++
		p.after(sidecar.RetryWait(p.failures, enroll.HintOf(err), *p.certificate, p.clock(), p.random.Float64), p.start)
		return
	}
	p.restarts++
	p.after(p.restartAfter(), p.start)
}

// restartAfter is what the kubelet waits before it starts the process again, as its backoff counts:
// the time that it waits is that of the restart before.
func (p *pod) restartAfter() time.Duration {
	const notice = time.Second // until the kubelet sees that it has ended
	if p.now-p.started > calmAfter {
		p.backoff = 0
	}
	wait := p.backoff
	p.backoff = min(max(firstBackoff, 2*p.backoff), mostBackoff)
	return notice + wait
}
