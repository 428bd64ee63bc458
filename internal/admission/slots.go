package admission

import "fmt"

// Share is what one CA may have of the requests in progress.
type Share struct {
	MaxInFlight int // 0: half of all where there are several authorities, otherwise all
	Authorities int // that are configured, this one included
}

// Limit is which bound a request met, as the metrics' label names it.
type Limit string

// The limits of a Queue.
const (
	LimitTotal  Limit = "total"  // of all requests
	LimitCA     Limit = "ca"     // of those for one CA
	LimitClient Limit = "client" // of those of one client
	LimitWait   Limit = "wait"   // of the time that the client waits
)

// slots bounds how many requests have something: in total, for one CA, and for one client.
//
// Half of all slots are reserved for the CAs, in equal parts. A CA
// that needs more than its part takes from the other half, the common
// one. So each CA keeps its part, however many of the others hang.
type slots[K comparable] struct {
	name             string // of what they are, for reasons
	total, perClient int    // 0: no bound

	taken    int
	ofCA     map[string]int
	ofClient map[K]int
}

// newSlots bounds nothing when total is 0. perClient 0 is a quarter of the total.
func newSlots[K comparable](name string, total, perClient int) *slots[K] {
	if perClient == 0 && total > 0 {
		perClient = max(1, total/4)
	}
	return &slots[K]{name: name, total: total, perClient: perClient, ofCA: map[string]int{}, ofClient: map[K]int{}}
}

func (s *slots[K]) take(ca string, client K) {
	s.taken++
	s.ofCA[ca]++
	s.ofClient[client]++
}

func (s *slots[K]) giveBack(ca string, client K) {
	s.taken--
	s.ofCA[ca]--
	s.ofClient[client]--
	if s.ofClient[client] == 0 { // clients come and go
		delete(s.ofClient, client)
	}
}

// reached returns the bound that is reached with the reason for the log, or nothing where there is
// a slot. A CA has no more than most.
func (s *slots[K]) reached(ca string, may Share, client K, most int) (limit Limit, reason string) {
	if s.total == 0 {
		return "", ""
	}
	mostOfCA, reserved := s.total, 0
	if may.Authorities > 1 {
		mostOfCA, reserved = max(1, s.total/2), s.total/2/may.Authorities
	}
	if may.MaxInFlight > 0 {
		mostOfCA = may.MaxInFlight
	}
	mostOfCA = min(mostOfCA, most)
	switch {
	case s.taken >= s.total:
		return LimitTotal, fmt.Sprintf("all %d %s are taken", s.total, s.name)
	case s.ofClient[client] >= s.perClient:
		return LimitClient, fmt.Sprintf("the client has all %d %s that one may have", s.perClient, s.name)
	case s.ofCA[ca] >= mostOfCA:
		return LimitCA, fmt.Sprintf("the CA has all %d %s that it may have", mostOfCA, s.name)
	case s.ofCA[ca] >= reserved && s.common(reserved) >= s.total-reserved*may.Authorities:
		return LimitTotal, fmt.Sprintf("all %d %s are taken but those reserved for other CAs", s.total, s.name)
	}
	return "", ""
}

// common is how many slots the CAs have beyond their reserved parts.
func (s *slots[K]) common(reserved int) int {
	sum := 0
	for _, taken := range s.ofCA {
		sum += max(0, taken-reserved)
	}
	return sum
}
