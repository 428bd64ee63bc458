package certservice

import (
	"context"
	"errors"
	"sync"
	"time"
)

// rounds lets clients have something costly done: once in each interval at most, however many ask. Whoever asks gets
// the result of a round that began after that, so that nothing that happened before is missed.
type rounds[T any] struct {
	do            func() (T, error)
	every         time.Duration // from the end of a round to the next
	most          int           // that wait; 0: no bound
	mostPerClient int

	running sync.Mutex // held from the wait for the next round to its end
	ended   time.Time  // of the last round

	mu       sync.Mutex
	next     *round[T]
	waiting  int
	ofClient map[clientKey]int
}

// round is one that has not begun, or its result.
type round[T any] struct {
	done   chan struct{}
	result T
	err    error
}

var (
	errRoundFull  = errors.New("too many clients wait for it")
	errRoundPanic = errors.New("internal server error")
)

// newReloads reads the configuration for clients. The interval is short enough for who waits, and long enough that the
// readings cost nothing. Clients beyond the bounds are told to come again, as each that waits holds a connection: a
// deployment has one that reloads, seldom more.
func newReloads(read func() error) *rounds[struct{}] {
	return &rounds[struct{}]{
		do: func() (struct{}, error) { return struct{}{}, read() }, every: time.Second,
		most: 64, mostPerClient: 4, ofClient: map[clientKey]int{},
	}
}

// newScrapes writes the metrics for clients, which takes a millisecond and which nobody needs a certificate for.
func newScrapes(write func() []byte) *rounds[[]byte] {
	return &rounds[[]byte]{
		do: func() ([]byte, error) { return write(), nil }, every: 100 * time.Millisecond, ofClient: map[clientKey]int{},
	}
}

// ask returns the result of the next round, errRoundFull when too many wait for it, or the error of ctx.
func (r *rounds[T]) ask(ctx context.Context, client clientKey) (result T, err error) {
	mine, first, ok := r.join(client)
	if !ok {
		return result, errRoundFull
	}
	defer r.part(client)
	if first {
		r.run(mine) // whether or not this client stays: others may have joined
	}
	select {
	case <-mine.done:
		return mine.result, mine.err
	case <-ctx.Done():
		return result, ctx.Err()
	}
}

// join returns the next round, and whether the caller is the one to run it.
func (r *rounds[T]) join(client clientKey) (mine *round[T], first, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.most > 0 && (r.waiting >= r.most || r.ofClient[client] >= r.mostPerClient) {
		return nil, false, false
	}
	r.waiting++
	r.ofClient[client]++
	if r.next == nil {
		r.next, first = &round[T]{done: make(chan struct{}), err: errRoundPanic}, true
	}
	return r.next, first, true
}

func (r *rounds[T]) part(client clientKey) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting--
	lower(r.ofClient, client)
}

func (r *rounds[T]) run(mine *round[T]) {
	r.running.Lock()
	defer r.running.Unlock()
	time.Sleep(time.Until(r.ended.Add(r.every)))
	r.mu.Lock()
	r.next = nil // who comes from here on must not get what is done now
	r.mu.Unlock()
	defer func() {
		r.ended = time.Now()
		close(mine.done)
	}()
	mine.result, mine.err = r.do()
}
