package certservice

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"time"
)

// Strangers logs what clients without a verified certificate cause, who could fill any log: of each kind a few lines a
// minute, and then one line with the numbers of all that were left out.
type Strangers struct {
	log    *slog.Logger
	minute time.Duration // shorter in tests

	mu        sync.Mutex
	timer     *time.Timer // nil: nothing was logged in the last minute
	seen      map[strangerEvent]int
	addresses map[string]struct{} // of those left out
}

// strangerEvent is a kind of line, as the summary's attributes name it.
type strangerEvent string

const (
	strangerRequest    strangerEvent = "requests"
	strangerHandshake  strangerEvent = "handshakes"
	strangerConnection strangerEvent = "connections"
	strangerOther      strangerEvent = "others"
)

const (
	linesPerMinute      = 5    // of each kind
	maxCountedAddresses = 4096 // that are told apart in one minute
)

// NewStrangers returns what logs to log.
func NewStrangers(log *slog.Logger) *Strangers {
	return &Strangers{log: log, minute: time.Minute, seen: map[strangerEvent]int{}, addresses: map[string]struct{}{}}
}

// admit says whether to log a line of the kind now; if not, it is counted. remote is the client's host:port, or empty.
func (s *Strangers) admit(kind strangerEvent, remote string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer == nil {
		s.timer = time.AfterFunc(s.minute, s.Summarise)
	}
	if s.seen[kind]++; s.seen[kind] <= linesPerMinute {
		return true
	}
	if host, _, err := net.SplitHostPort(remote); err == nil && len(s.addresses) < maxCountedAddresses {
		s.addresses[host] = struct{}{}
	}
	return false
}

// info logs a line of the kind, or counts it.
func (s *Strangers) info(kind strangerEvent, remote, message string, attrs ...slog.Attr) {
	if s.log.Enabled(context.Background(), slog.LevelInfo) && s.admit(kind, remote) {
		s.log.LogAttrs(context.Background(), slog.LevelInfo, message, append(attrs, slog.String("remote", remote))...)
	}
}

// Summarise logs the numbers of what was left out since the last summary, if anything was.
func (s *Strangers) Summarise() {
	s.mu.Lock()
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	seen, addresses := s.seen, len(s.addresses)
	s.seen, s.addresses = map[strangerEvent]int{}, map[string]struct{}{}
	s.mu.Unlock()
	var attrs []slog.Attr
	sum := 0 // of what was left out
	for _, kind := range []strangerEvent{strangerRequest, strangerHandshake, strangerConnection, strangerOther} {
		left := max(0, seen[kind]-linesPerMinute)
		sum += left
		attrs = append(attrs, slog.Int(string(kind), left))
	}
	if sum == 0 {
		return
	}
	level := slog.LevelInfo
	if seen[strangerRequest] > linesPerMinute {
		level = slog.LevelWarn
	}
	s.log.LogAttrs(context.Background(), level, "not logged one by one: clients without a trusted certificate",
		append(attrs, slog.Int("addresses", addresses))...)
}

// Write takes lines of an HTTP server's own log.
func (s *Strangers) Write(line []byte) (int, error) {
	s.info(strangerOther, "", truncate(string(line)))
	return len(line), nil
}
