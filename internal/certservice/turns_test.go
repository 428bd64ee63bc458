package certservice

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certfetcher/certfetcher/test/golden"
)

// crowd is clients that wait for one another, or take what others have. a1 and a2 are connections or requests of the
// client a.
type crowd struct {
	mu      sync.Mutex
	events  []string
	members map[string]*member
	// enter lets a member in, or says why not.
	enter   func(ctx context.Context, m *member) (leave func(), err error)
	refused string        // the words before why not
	kept    func() string // what is kept of the members
	round   int           // the last one
	during  []string      // who asks during the next round
	panics  atomic.Bool   // the next round does
	pool    *pool
}

type member struct {
	*connection
	name, how     string
	leave, cancel func()
}

func key(n byte) (k clientKey) {
	k.certificate[0] = n
	return k
}

// Each text of testdata/turns.txt is a script: below a command is what becomes of the members in the moment after it,
// on a clock of the script's own. The method run says what the commands do.
func TestTurns_areTakenAsTheScriptsSay(t *testing.T) {
	golden.Play(t, "turns.txt", func(t *testing.T, _, commands string) (text string) {
		synctest.Test(t, func(t *testing.T) {
			c := &crowd{members: map[string]*member{}, refused: "is refused:"}
			for line := range strings.Lines(commands) {
				c.run(strings.Fields(line)[1:])
				synctest.Wait()
				text += line + c.told()
			}
			for _, m := range c.members {
				c.leave(m)
				m.cancel()
				m.Close()
			}
			time.Sleep(time.Minute) // so that those who wait notice
		})
		return text
	})
}

func (c *crowd) tell(name, event string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events = append(c.events, strings.TrimSpace(name+" "+event)+"\n")
}

func (c *crowd) told() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	events := c.events
	c.events = nil
	slices.Sort(events)
	return strings.Join(events, "")
}

func (c *crowd) run(words []string) {
	command, words := words[0], words[1:]
	switch command {
	case "pool": // of so many connections, of so many bytes
		c.newPool(number[int](words[0]), number[int64](words[1]))
	case "gate": // of so many places
		c.newGate(number[int](words[0]))
	case "lanes":
		l := lanes{of: map[clientKey]*lane{}}
		c.kept = func() string { return fmt.Sprint(len(l.of), " lanes") }
		c.enter = func(ctx context.Context, m *member) (func(), error) { return l.enter(ctx, m.client) }
	case "processors": // so many, of them so many for heavy computations
		c.newCPU(number[int](words[0]), number[int](words[1]))
	case "reloads":
		newRounds(c, newReloads(func() error { return errors.New(c.nextRound()) }))
	case "scrapes":
		newRounds(c, newScrapes(func() []byte { return []byte(c.nextRound()) }))
	case "enter", "active", "busy", "idle", "heavy", "deriving": // one after the other
		each(words, func(name string) {
			c.join(&member{connection: pipe(), name: name, how: command})
			synctest.Wait()
			time.Sleep(time.Millisecond)
		})
	case "leave":
		each(words, func(name string) { c.leave(c.members[name]) })
	case "cancel":
		each(words, func(name string) { c.members[name].cancel() })
	case "shut":
		c.members[words[0]].shut()
	case "stalls": // its client does, since a minute
		c.members[words[0]].awaiting.Store(time.Now().Add(-time.Minute).UnixNano())
	case "hold", "keep": // bytes
		m, n := c.members[words[0]], number[int64](words[1])
		if command == "keep" {
			c.pool.keep(m.connection, n)
		} else if !c.pool.hold(m.connection, n) {
			c.tell(m.name, "may not go on")
		}
	case "turn":
		c.pool.turn(c.members[words[0]].connection, states[words[1]])
	case "during": // the next round, clients ask
		c.during = words
	case "panic": // in the next round
		c.panics.Store(true)
	case "after":
		time.Sleep(must(time.ParseDuration(words[0])))
	case "kept":
		c.tell("", c.kept())
	default:
		panic(command)
	}
}

// leave has a member leave, if it has entered.
func (c *crowd) leave(m *member) {
	c.mu.Lock()
	leave := m.leave
	m.leave = func() {}
	c.mu.Unlock()
	leave()
}

// join lets a member enter, whenever it may.
func (c *crowd) join(m *member) {
	m.client, m.leave = key(m.name[0]), func() {}
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel, c.members[m.name] = cancel, m
	go func() {
		defer func() {
			if v := recover(); v != nil {
				c.tell(m.name, fmt.Sprint("panics: ", v))
			}
		}()
		leave, err := c.enter(ctx, m)
		if err != nil {
			c.tell(m.name, c.refused+" "+err.Error())
			return
		}
		c.tell(m.name, "enters")
		c.mu.Lock()
		defer c.mu.Unlock()
		m.leave = leave
	}()
}

var states = map[string]connState{"active": connActive, "busy": connBusy, "idle": connIdle}

func (c *crowd) newPool(limit int, budget int64) {
	p := newPool(limit, budget, func(lost *connection, reason lossReason) {
		c.tell(c.nameOf(lost), "is lost to "+string(reason))
	})
	c.pool, c.kept = p, func() string {
		return fmt.Sprintf("%d connections, %d bytes, evicted %+v", len(p.conns), p.held, p.evicted)
	}
	c.enter = func(_ context.Context, m *member) (func(), error) {
		if !p.enter(m.connection, m.client, states[m.how]) {
			return nil, errors.New("there is no room")
		}
		return func() { m.Close() }, nil
	}
}

func (c *crowd) newGate(limit int) {
	g := newGate(limit, func(slow *connection) { c.tell(c.nameOf(slow), "is to be ended") })
	c.kept = func() string {
		return fmt.Sprintf("%d clients, %d places, %d waiting", len(g.places), len(g.holders), len(g.waiting))
	}
	c.enter = func(_ context.Context, m *member) (func(), error) {
		if !g.enter(m.connection, time.Now().Add(10*time.Second)) {
			return nil, errNoPlace
		}
		return func() { g.leave(m.connection) }, nil
	}
}

func (c *crowd) newCPU(processors, heavy int) {
	cpu := NewCPU()
	cpu.free, cpu.heavy = processors, heavy
	build := CMPBuilder(CMPOptions{CPU: cpu, Log: slog.New(slog.DiscardHandler)})
	c.kept = func() string { return fmt.Sprint(len(cpu.account), " clients, ", cpu.free, " processors") }
	c.enter = func(ctx context.Context, m *member) (func(), error) {
		if m.how == "deriving" { // a key for an answer of a CA
			entered, left := make(chan struct{}), make(chan struct{})
			derive := must(build(exampleEntry)).(*cmpAuthority).cfg.Derive
			go func() { _ = derive(func() { close(entered); <-left }) }()
			<-entered
			return func() { close(left) }, nil
		}
		return cpu.enter(ctx, m.client, m.how == "heavy")
	}
}

func newRounds[T any](c *crowd, r *rounds[T]) {
	waiting := func() int {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.waiting
	}
	do := r.do
	r.do = func() (T, error) {
		during := c.during
		c.during = nil
		each(during, func(name string) {
			before := waiting()
			c.join(&member{connection: pipe(), name: name})
			for waiting() == before {
				runtime.Gosched()
			}
		})
		return do()
	}
	c.refused = "is told"
	c.kept = func() string { return fmt.Sprintf("%d waiting, %d clients", r.waiting, len(r.ofClient)) }
	c.enter = func(ctx context.Context, m *member) (func(), error) {
		result, err := r.ask(ctx, m.client)
		return nil, cmp.Or(err, fmt.Errorf("%s", any(result)))
	}
}

func (c *crowd) nextRound() string {
	c.round++
	if c.panics.Swap(false) {
		panic("hostile")
	}
	return fmt.Sprint("the result of round ", c.round)
}

// pipe is a connection of no pool.
func pipe() *connection {
	ours, _ := net.Pipe()
	c := newConnection(ours)
	c.pool = newPool(0, 0, nil)
	c.left = true
	return c
}

func (c *crowd) nameOf(of *connection) string {
	for name, m := range c.members {
		if m.connection == of {
			return name
		}
	}
	return "?"
}

// each calls do with every name: a1..3 are a1, a2 and a3.
func each(words []string, do func(name string)) {
	for _, word := range words {
		first, last, _ := strings.Cut(word, "..")
		for n := number[int](first[1:]); n <= number[int](cmp.Or(last, first[1:])); n++ {
			do(fmt.Sprint(first[:1], n))
		}
	}
}

func number[N int | int64](text string) (n N) {
	must(fmt.Sscan(text, &n))
	return n
}
