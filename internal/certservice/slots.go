package certservice

import (
	"fmt"
	"sync"
)

// slots bounds the enrolments and updates under way: in all, for one CA, and for one client. It refuses rather than
// queues: a client that waits in a queue holds a connection, and does not learn that another replica has room.
//
// Half of all slots are reserved for the CAs, in equal parts. A CA that needs more than its part takes from the other
// half, the common one. So each CA has its part, however many of the others hang.
type slots struct {
	total, perClient int // 0: no bound

	mu       sync.Mutex
	taken    int
	ofCA     map[string]int
	ofClient map[clientKey]int
}

// Share is what one authority may have of the requests under way.
type Share struct {
	MaxInFlight int // 0: half of all where there are several authorities, else all
	Authorities int // that are configured, this one included
}

// limitKind is which of the bounds is reached, as the metrics' label names it.
type limitKind string

const (
	limitTotal  limitKind = "total"
	limitCA     limitKind = "ca"
	limitClient limitKind = "client"
	limitCPU    limitKind = "cpu"
)

// newSlots bounds nothing when total is 0. perClient 0 is a quarter of the total.
func newSlots(total, perClient int) *slots {
	if perClient == 0 && total > 0 {
		perClient = max(1, total/4)
	}
	return &slots{total: total, perClient: perClient, ofCA: map[string]int{}, ofClient: map[clientKey]int{}}
}

// take returns what gives the slot back, or the bound that is reached with the reason for the log.
func (s *slots) take(ca string, may Share, client clientKey) (release func(), limit limitKind, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if limit, reason = s.reached(ca, may, client); limit != "" {
		return nil, limit, reason
	}
	s.taken++
	s.ofCA[ca]++
	s.ofClient[client]++
	return func() { s.giveBack(ca, client) }, "", ""
}

func (s *slots) reached(ca string, may Share, client clientKey) (limitKind, string) {
	if s.total == 0 {
		return "", ""
	}
	most, reserved := s.total, 0
	if may.Authorities > 1 {
		most, reserved = max(1, s.total/2), s.total/2/may.Authorities
	}
	if may.MaxInFlight > 0 {
		most = may.MaxInFlight
	}
	switch {
	case s.taken >= s.total:
		return limitTotal, fmt.Sprintf("all %d slots are taken", s.total)
	case s.ofClient[client] >= s.perClient:
		return limitClient, fmt.Sprintf("the client has all %d slots that one may have", s.perClient)
	case s.ofCA[ca] >= most:
		return limitCA, fmt.Sprintf("the CA has all %d slots that it may have", most)
	case s.ofCA[ca] >= reserved && s.common(reserved) >= s.total-reserved*may.Authorities:
		return limitTotal, fmt.Sprintf("all %d slots are taken but those reserved for other CAs", s.total)
	}
	return "", ""
}

// common is how many slots the CAs have beyond their reserved parts.
func (s *slots) common(reserved int) int {
	sum := 0
	for _, taken := range s.ofCA {
		sum += max(0, taken-reserved)
	}
	return sum
}

func (s *slots) giveBack(ca string, client clientKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken--
	lower(s.ofCA, ca)
	lower(s.ofClient, client)
}

// lower keeps no counts of what is not under way: clients come and go.
func lower[K comparable](counts map[K]int, key K) {
	if counts[key]--; counts[key] == 0 {
		delete(counts, key)
	}
}

func (s *slots) count() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return float64(s.taken)
}

func (s *slots) countOf(ca string) float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return float64(s.ofCA[ca])
}
