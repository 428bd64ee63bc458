package certservice

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// record remembers requests for the status page: the last ones, and for each CA how they ended. It
// holds no names of clients and nothing of what they asked for.
type record struct {
	mu     sync.Mutex
	recent [mostRecent]requestStatus // a ring; before next are the newest
	next   int
	of     map[string]*authorityRecord // by CA
}

const (
	// mostRecent is how many requests are remembered.
	mostRecent = 50
	// mostRecorded bounds the CAs, those of the past included. All are forgotten beyond it.
	mostRecorded = 1024
	// mostShownID bounds a request id, which the client chooses.
	mostShownID = 64
)

// authorityRecord is how the requests for a CA ended. Trials by certfetcher doctor do not count.
type authorityRecord struct {
	outcomes    map[outcome]int
	lastSuccess time.Time    // a certificate was issued
	lastError   *errorStatus // the CA refused, or could not be reached; nil: never
}

// errorStatus is the last error of a CA.
type errorStatus struct {
	Time      time.Time `json:"time"`
	Outcome   outcome   `json:"outcome"` // refused or failed
	Text      string    `json:"text"`    // as clients are told; the log has more
	RequestID string    `json:"requestId,omitempty"`
}

// requestStatus is one request. It names a CA only if that is configured: any client can make up
// others.
type requestStatus struct {
	Time       time.Time `json:"time"` // when it came
	Operation  string    `json:"operation"`
	CA         string    `json:"ca,omitempty"`
	Outcome    outcome   `json:"outcome"`
	Status     int       `json:"status"`
	DurationMS float64   `json:"durationMs"`
	RequestID  string    `json:"requestId,omitempty"`
	Doctor     bool      `json:"doctor,omitempty"` // a trial by certfetcher doctor
}

// add remembers a request that was answered. It leaves out those of clients that are not
// authenticated, who could fill the list, and probes that were served.
func (r *record) add(e *event, came time.Time) {
	if e.outcome == outcomeUnauthorized || e.probe && e.outcome == outcomeOK {
		return
	}
	s := requestStatus{Time: came.UTC(), Operation: e.operation, Outcome: e.outcome, Status: e.status,
		DurationMS: float64(e.duration.Microseconds()) / 1000, RequestID: shorten64(e.requestID), Doctor: e.trial}
	if s.Operation == "" {
		s.Operation = "none"
	}
	if e.caKnown {
		s.CA = e.caName
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.recent[r.next%mostRecent] = s
	r.next++
	if e.caKnown && !e.trial {
		r.authority(e.caName).add(e, s)
	}
}

func (r *record) authority(name string) *authorityRecord {
	a, ok := r.of[name]
	if !ok {
		if len(r.of) >= mostRecorded || r.of == nil {
			r.of = map[string]*authorityRecord{}
		}
		a = &authorityRecord{outcomes: map[outcome]int{}}
		r.of[name] = a
	}
	return a
}

func (a *authorityRecord) add(e *event, s requestStatus) {
	a.outcomes[e.outcome]++
	ended := s.Time.Add(e.duration)
	switch e.outcome {
	case outcomeIssued:
		a.lastSuccess = ended
	case outcomeRefused, outcomeFailed:
		a.lastError = &errorStatus{ended, e.outcome, truncate(e.told), s.RequestID}
	}
}

func shorten64(id string) string {
	if len(id) > mostShownID {
		return id[:mostShownID] + "…"
	}
	return id
}

// requests are the last ones, the newest first.
func (r *record) requests() []requestStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := []requestStatus{} // never nil, which JSON would call null
	for i := r.next - 1; i >= max(0, r.next-mostRecent); i-- {
		list = append(list, r.recent[i%mostRecent])
	}
	return list
}

// fill adds to a CA's status how its requests ended.
func (r *record) fill(s *authorityStatus) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s.Requests = map[outcome]int{}
	if a := r.of[s.Name]; a != nil {
		maps.Copy(s.Requests, a.outcomes)
		s.LastSuccess = timeOrNil(a.lastSuccess)
		s.LastError = a.lastError // which is replaced, and never changed
	}
}

// readings remember how files and keys were read the last time.
type readings struct {
	mu sync.Mutex
	of map[readKind]readingStatus
}

// readKind is what was read, in the words of the page.
type readKind string

const (
	readIdentity      readKind = "TLS files"
	readConfiguration readKind = "CAs"
	readPolicy        readKind = "Policy"
	readCRLs          readKind = "CRLs"
	readTokenKeys     readKind = "Token keys"
)

// attempt is one reading. With ok something was put to use; a fault beside it is that of a part.
type attempt struct {
	ok             bool
	version, holds string // of what was put to use
	fault          string
}

// readingStatus is what is in use of one kind, and what was wrong at the last attempt.
type readingStatus struct {
	What    readKind   `json:"what"`
	Holds   string     `json:"holds,omitempty"`   // such as "2 CAs"
	Version string     `json:"version,omitempty"` // the same for the same content
	Loaded  *time.Time `json:"loaded"`            // null: nothing could be loaded yet
	Fault   string     `json:"fault,omitempty"`   // of the last attempt
	Tried   time.Time  `json:"tried"`             // the last attempt
}

func (r *readings) note(what readKind, n attempt) {
	now := time.Now().UTC()
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.of[what]
	s.What, s.Tried, s.Fault = what, now, truncate(n.fault)
	if n.ok {
		s.Loaded, s.Holds, s.Version = &now, n.holds, n.version
	}
	if r.of == nil {
		r.of = map[readKind]readingStatus{}
	}
	r.of[what] = s
}

func (r *readings) get(what readKind) (s readingStatus, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, known = r.of[what]
	return s, known
}

func faultText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func counted(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// attempt is what is in use of cmpServers.json. Its version is that of everything but the secrets:
// with a hash of those, whoever sees the page could find out short ones by trying.
func (l loading) attempt() attempt {
	if l.err != nil {
		return attempt{fault: l.err.Error()}
	}
	hash := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(l.authorities)) {
		a := l.authorities[name]
		fmt.Fprintf(hash, "%q %d ", name, a.maxInFlight)
		if known, ok := a.Authority.(interface{ facts() authorityFacts }); ok {
			fmt.Fprintf(hash, "%v ", known.facts().version)
		}
	}
	r := attempt{ok: true, version: digest(hash.Sum(nil)).String(), holds: counted(len(l.authorities), "CA")}
	if len(l.file.Faults) > 0 {
		r.fault = l.file.Faults.Error()
	}
	return r
}

// attempt is what is in use of the CRLs.
func (s *crlSet) attempt(faults Faults) attempt {
	hash, crls := sha256.New(), s.series()
	for _, c := range crls {
		hash.Write(c.digest[:])
	}
	r := attempt{ok: true, version: digest(hash.Sum(nil)).String(), holds: counted(len(crls), "CRL")}
	if len(faults) > 0 {
		r.fault = faults.Error()
	}
	return r
}

// authorityFacts are what the status page tells of a CA's entry. They hold no secret.
type authorityFacts struct {
	url, trust, protection string
	anchors                int
	anchorsEnd             time.Time // of the first to expire; zero: there are none
	signerEnd, tlsEnd      time.Time // of the service's own certificates for this CA; zero: there are none
	version                digest    // of the entry without its secrets
}

func factsOf(s Server) authorityFacts {
	f := authorityFacts{url: publicURL(s.URL), trust: s.ResponseTrust, protection: s.Protection,
		anchors: len(s.TrustAnchors)}
	if f.trust == "" {
		f.trust = TrustAnchored
	}
	for _, anchor := range s.TrustAnchors {
		f.anchorsEnd = earlier(f.anchorsEnd, anchor.NotAfter)
	}
	hash := sha256.New()
	fmt.Fprintf(hash, "%q %q %q %q %q %t %t %q %v %q %t %x ", f.url, s.IssuerDN, s.SignerDN, s.RecipientDN,
		s.Protection, s.SenderReference, s.ExplicitConfirm, s.ResponseTrust, s.Timeout, s.CAName, s.AllowModified,
		s.TLS.digest())
	for _, certs := range [][]*x509.Certificate{s.TrustAnchors, s.AdditionalRoots} {
		for _, c := range certs {
			fmt.Fprintf(hash, "%x ", sha256.Sum256(c.Raw))
		}
		fmt.Fprintf(hash, "; ")
	}
	if s.Signer.identity != nil {
		f.signerEnd = s.Signer.identity.Leaf.NotAfter
		for _, der := range s.Signer.identity.Certificate {
			fmt.Fprintf(hash, "%x ", sha256.Sum256(der))
		}
	}
	if s.TLS.identity != nil {
		f.tlsEnd = s.TLS.identity.Leaf.NotAfter
	}
	f.version = digest(hash.Sum(nil))
	return f
}

func (a *cmpAuthority) facts() authorityFacts { return a.about }

// publicURL leaves out what may be secret, which is all of a text that is no URL.
func publicURL(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	return pki.ShowURL(u)
}

// connectionCounts are the numbers of open connections by their clients and states.
type connectionCounts struct {
	mu   sync.Mutex
	list []connectionCount
}

type connectionCount struct {
	clients, state string
	count          func() float64
}

func (c *connectionCounts) add(clients, state string, count func() float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, connectionCount{clients, state, count})
}

// now are the numbers by clients and state.
func (c *connectionCounts) now() map[string]map[string]int {
	c.mu.Lock()
	list := slices.Clone(c.list)
	c.mu.Unlock()
	counts := map[string]map[string]int{}
	for _, one := range list {
		if counts[one.clients] == nil {
			counts[one.clients] = map[string]int{}
		}
		counts[one.clients][one.state] = int(one.count())
	}
	return counts
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
