package certservice

import (
	"context"
	"sync"
)

// perLane is how many requests of one client are worked on at the same time, the waiting for a CA apart. It is plenty
// for work that takes less than a millisecond, and few enough that others find a processor soon.
const perLane = 16

// lanes has the requests of each client wait for one another: what a client sends beyond perLane, and what it does not
// read the answers of, is at its own cost.
type lanes struct {
	mu sync.Mutex
	of map[clientKey]*lane
}

type lane struct {
	room  chan struct{} // holds perLane
	users int           // requests in it and waiting for it
}

// enter waits for room, and returns what makes room again, once, or the error of ctx.
func (l *lanes) enter(ctx context.Context, client clientKey) (leave func(), err error) {
	mine := l.join(client)
	select {
	case mine.room <- struct{}{}:
	case <-ctx.Done():
		l.part(client, mine)
		return nil, ctx.Err()
	}
	return sync.OnceFunc(func() {
		<-mine.room
		l.part(client, mine)
	}), nil
}

func (l *lanes) join(client clientKey) *lane {
	l.mu.Lock()
	defer l.mu.Unlock()
	mine, ok := l.of[client]
	if !ok {
		mine = &lane{room: make(chan struct{}, perLane)}
		l.of[client] = mine
	}
	mine.users++
	return mine
}

func (l *lanes) part(client clientKey, mine *lane) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if mine.users--; mine.users == 0 {
		delete(l.of, client)
	}
}
