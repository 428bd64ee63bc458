package storm

import (
	"net/http"
	"slices"
	"time"

	"github.com/certfetcher/certfetcher/client"
	"github.com/certfetcher/certfetcher/internal/admission"
)

// caName is that of the only CA.
const caName = "RA"

// authority is a CA that works on as many requests at a time as it has workers, and on the others
// in their order. It does not notice when nobody waits for an answer any more.
type authority struct {
	*simulation
	workers int
	mean    time.Duration // of one request, for one worker
	down    bool          // refuses connections

	idle    int // workers
	queue   []func()
	issued  int
	arrived []int // requests in each second
	most    int   // at the same time
}

func newAuthority(s *simulation, perSecond float64, workers int) *authority {
	return &authority{simulation: s, workers: workers, idle: workers,
		mean: time.Duration(float64(workers) / perSecond * float64(time.Second))}
}

// issue calls done when it has issued a certificate, or returns false when it is down.
func (a *authority) issue(done func()) bool {
	if a.down {
		return false
	}
	a.arrived = count(a.arrived, a.now)
	a.most = max(a.most, len(a.queue)+a.workers-a.idle+1)
	a.queue = append(a.queue, done)
	a.work()
	return true
}

func (a *authority) work() {
	if a.idle == 0 || len(a.queue) == 0 {
		return
	}
	done := a.queue[0]
	a.queue = a.queue[1:]
	a.idle--
	a.after(time.Duration((0.5+a.random.Float64())*float64(a.mean)), func() {
		a.idle++
		a.issued++
		done()
		a.work()
	})
}

// count adds one to the second of a time.
func count(seconds []int, at time.Duration) []int {
	second := int(at / time.Second)
	for len(seconds) <= second {
		seconds = append(seconds, 0)
	}
	seconds[second]++
	return seconds
}

// replica is one certservice: handshakes one after the other, and the queue for the CA.
type replica struct {
	*simulation
	ca        *authority
	queue     *admission.Queue[int]
	handshake time.Duration // the processor time of one, with the request that follows
	mostOpen  int           // connections that wait for it
	open      []*exchange   // the first has waited longest
	busy      bool
	asked     []int // requests in each second
	closed    int   // connections closed for others
}

// exchange is a try of a pod.
type exchange struct {
	pod      int
	begun    time.Duration
	patience time.Duration
	// answered is called once: with nil for a certificate.
	answered func(error)
	wasted   func() // a certificate came after the client had gone
	ticket   *admission.Ticket[int]
	settled  bool // the client has its answer, or has gone
}

// connect begins a try.
func (r *replica) connect(x *exchange) {
	r.open = append(r.open, x)
	// As the pool of connections without a client that is known: each client has one, and any but
	// the newest goes.
	if len(r.open) > r.mostOpen {
		i := r.random.IntN(len(r.open) - 1)
		unlucky := r.open[i]
		r.open = slices.Delete(r.open, i, i+1)
		r.closed++
		unlucky.answer(&client.ConnectionError{})
	}
	r.shake()
}

func (r *replica) shake() {
	if r.busy || len(r.open) == 0 {
		return
	}
	r.busy = true
	x := r.open[0]
	r.after(r.handshake, func() {
		r.busy = false
		if len(r.open) > 0 && r.open[0] == x {
			r.open = r.open[1:]
			r.ask(x)
		}
		r.shake()
	})
}

// ask is certservice's handler: admission, the CA, the answer.
func (r *replica) ask(x *exchange) {
	r.asked = count(r.asked, r.now)
	var refused *admission.Refusal
	x.ticket, refused = r.queue.Ask(admission.Request[int]{
		CA: caName, Share: admission.Share{Authorities: 1}, Client: x.pod, Patience: x.patience,
		// Not under the queue's lock.
		Turn: func(send bool) { r.after(0, func() { r.turn(x, send) }) },
	})
	if refused != nil {
		x.refuse(refused)
		return
	}
	// Handshakes take no time that matters, so a client does not go before.
	r.after(x.begun+x.patience-r.now, func() {
		if !x.settled {
			r.leave(x)
		}
	})
}

func (x *exchange) refuse(refused *admission.Refusal) {
	x.answer(&client.StatusError{StatusCode: http.StatusServiceUnavailable,
		RetryAfter: time.Duration(refused.RetryAfter) * time.Second})
}

func (r *replica) turn(x *exchange, send bool) {
	switch {
	case x.settled: // it has gone, and left
	case !send:
		x.refuse(r.queue.Late(x.ticket))
	case !r.ca.issue(func() {
		r.queue.Leave(x.ticket, true)
		x.answer(nil)
	}):
		r.queue.Leave(x.ticket, false)
		x.answer(&client.StatusError{StatusCode: http.StatusInternalServerError})
	}
}

// leave is the client that does not wait any longer.
func (r *replica) leave(x *exchange) {
	r.queue.Leave(x.ticket, false)
	x.answer(&client.ConnectionError{})
}

// answer gives the client its answer, if it is still there.
func (x *exchange) answer(err error) {
	switch {
	case !x.settled:
		x.settled = true
		x.answered(err)
	case err == nil:
		x.wasted()
	}
}
