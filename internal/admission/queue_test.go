package admission

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
)

// play is a queue, and those who ask it. Each has a name such as a1: a1 and a2 are requests of the client a.
type play struct {
	queue   *Queue[string]
	now     time.Time
	may     Share
	tickets map[string]*Ticket[string]
	sent    []string // in their order, but for those that have left
	events  []string
}

// Each text of testdata/queue.txt is a script: below a command is what becomes of the requests then. The method run
// says what the commands do. What is drawn is always the middle.
func TestQueue_decidesAsTheScriptsSay(t *testing.T) {
	golden.Play(t, "queue.txt", func(_ *testing.T, _, commands string) (text string) {
		p := &play{now: time.Unix(1_000_000, 0), tickets: map[string]*Ticket[string]{}}
		for line := range strings.Lines(commands) {
			p.events = nil
			p.run(strings.Fields(line)[1:])
			text += line + strings.Join(p.events, "")
		}
		return text
	})
}

func (p *play) tell(format string, args ...any) {
	p.events = append(p.events, fmt.Sprintf(format+"\n", args...))
}

func (p *play) run(words []string) {
	switch command, words := words[0], words[1:]; command {
	case "slots": // so many, for so many CAs, each of which may have so many, with so many places to wait
		p.may = Share{Authorities: number(words[1]), MaxInFlight: number(words[2])}
		cfg := Config{MaxInFlight: number(words[0]), Now: func() time.Time { return p.now },
			Random: func() float64 { return 0.5 }}
		if len(words) > 3 {
			cfg.MaxQueued = number(words[3])
		}
		p.queue = New[string](cfg)
	case "take": // as many slots for a CA as can be had, each for another client
		for n := range 10_000 {
			if limit, reason := p.queue.slots.reached(words[0], p.may, fmt.Sprint(words[0], n), 1<<30); limit != "" {
				p.tell("%s gets %d: %s: %s", words[0], n, limit, reason)
				return
			}
			p.queue.slots.take(words[0], fmt.Sprint(words[0], n))
		}
		p.tell("%s gets 10000", words[0])
	case "ask", "urgent", "ask-patiently", "ask-other-CA":
		each(words, func(name string) { p.ask(command, name) })
	case "leave", "fail": // answered by the CA, or not
		each(words, func(name string) { p.leave(name, command == "leave") })
	case "answers": // of the CA: so many, each after so long
		for range number(words[0]) {
			p.now = p.now.Add(fixture.Must(time.ParseDuration(words[1])))
			if len(p.sent) > 0 {
				p.leave(p.sent[0], true)
			}
		}
	case "after":
		p.now = p.now.Add(fixture.Must(time.ParseDuration(words[0])))
	case "quietly": // does the rest
		before := p.events
		p.run(words)
		p.events = before
	case "summary":
		p.tell("%d in progress, %d wait, %.1f/s", p.queue.InProgress(), p.queue.WaitingFor("CA"), p.queue.Rate("CA"))
	case "kept":
		s := p.queue.slots
		p.tell("%d slots, %d clients, %d places", s.taken, len(s.ofClient), p.queue.places.taken)
	default:
		panic(command)
	}
}

func (p *play) ask(how, name string) {
	r := Request[string]{CA: "CA", Share: p.may, Client: strings.TrimRight(name, "0123456789"), Urgent: how == "urgent"}
	switch how {
	case "ask-patiently":
		r.Patience = 10 * time.Minute
	case "ask-other-CA":
		r.CA = "other"
	}
	said := ""
	r.Turn = func(send bool) {
		said = "is sent"
		if send {
			p.sent = append(p.sent, name)
		} else {
			said = "is late"
		}
		if p.tickets[name] != nil {
			p.tell("%s %s", name, said)
		}
	}
	ticket, refused := p.queue.Ask(r)
	if refused != nil {
		p.tell("%s is refused: %s: %s; come back after %d s", name, refused.Limit, refused.Reason, refused.RetryAfter)
		return
	}
	p.tickets[name] = ticket
	if said == "" {
		said = "waits"
	}
	p.tell("%s %s", name, said)
}

func (p *play) leave(name string, answered bool) {
	for i, sent := range p.sent {
		if sent == name {
			p.sent = append(p.sent[:i:i], p.sent[i+1:]...)
			break
		}
	}
	ticket := p.tickets[name]
	delete(p.tickets, name)
	late := ticket.state == stateLeft
	if p.queue.Leave(ticket, answered); late {
		refused := p.queue.Late(ticket)
		p.tell("%s is refused: %s; come back after %d s", name, refused.Reason, refused.RetryAfter)
	}
}

func number(text string) int { return fixture.Must(strconv.Atoi(text)) }

// each calls do with every name: a1..3 are a1, a2 and a3; *1..3 are 1x, 2x and 3x, of a client each.
func each(words []string, do func(name string)) {
	for _, word := range words {
		first, last, several := strings.Cut(word, "..")
		if !several {
			do(first)
			continue
		}
		for n := number(first[1:]); n <= number(last); n++ {
			if first[0] == '*' {
				do(fmt.Sprint(n, "x"))
				continue
			}
			do(fmt.Sprint(first[:1], n))
		}
	}
}

// A reload may change how many CAs there are while requests are in progress.
func TestQueue_neverMoreThanTheTotal(t *testing.T) {
	q := New[int](Config{MaxInFlight: 16, MaxPerClient: 16, Now: time.Now, Random: func() float64 { return 0.5 }})
	var wait sync.WaitGroup
	for n := range 32 {
		wait.Go(func() {
			for i := range 500 {
				ticket, _ := q.Ask(Request[int]{CA: string(rune('a' + (i*n)%7)), Share: Share{Authorities: 1 + (i+n)%5},
					Client: n, Turn: func(bool) {}})
				if ticket != nil {
					assert.LessOrEqual(t, q.InProgress(), 16)
					q.Leave(ticket, true)
				}
			}
		})
	}
	wait.Wait()
	assert.Zero(t, q.InProgress())
}

// Each second has as many as the CA answers, and no client more than its part.
func TestBookings_spread(t *testing.T) {
	b, now := newBookings[int](2), time.Unix(1000, 0)
	var waits []int
	for client := range 1000 {
		waits = append(waits, b.book(client, false, 2.5, now, 0.5))
	}
	assert.Equal(t, []int{1, 1, 1, 2, 2, 2, 3}, waits[:7], "three are more than two and a half, two are not")
	assert.Equal(t, []int{239, 240, 240, 240, 121 + 60}, waits[716:721],
		"beyond the horizon: some time in its later half")

	now = now.Add(100 * time.Second)
	assert.Equal(t, 101, b.book(602, false, 2.5, now, 0.5), "one that comes too early keeps its second")
	assert.Equal(t, 141, b.book(5000, false, 2.5, now, 0.5), "the seconds that are new have room")
	assert.Equal(t, 141, b.book(5000, true, 2.5, now, 0.5), "one address with several clients")
	assert.Equal(t, 181, b.book(5000, true, 2.5, now, 0.5), "has its part, and no more")

	b.forget(now.Unix() + 2*horizon)
	assert.Empty(t, b.of, "nothing is kept")
}
