package certservice

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	_ "embed" // the page's template and style
	"encoding/json"
	"fmt"
	"html/template"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// serviceStatus is what /status.json says, and the page. It holds no key, password or token, and nothing of
// what clients ask for, but for what a CA writes in its errors.
type serviceStatus struct {
	Made        time.Time                 `json:"made"`
	Version     string                    `json:"version"`
	Go          string                    `json:"go"`
	Started     time.Time                 `json:"started"`
	Ready       bool                      `json:"ready"`
	Problem     string                    `json:"problem,omitempty"` // why it is not ready
	Certificate *certificateStatus        `json:"certificate"`       // the service's own; null: none is known
	Readings    []readingStatus           `json:"readings"`
	PolicySet   bool                      `json:"policySet"` // false: every client may ask for every name
	CRLs        []crlStatus               `json:"crls"`
	Authorities []authorityStatus         `json:"authorities"` // at most mostShown, those with errors first
	MoreCAs     int                       `json:"moreAuthorities"`
	InFlight    int                       `json:"inFlight"`
	MaxInFlight int                       `json:"maxInFlight"` // 0: no bound
	Connections map[string]map[string]int `json:"connections"` // by clients and state
	Requests    []requestStatus           `json:"requests"`    // the newest first
}

// mostShown bounds the lists of CAs and CRLs.
const mostShown = 200

type certificateStatus struct {
	Subject   string    `json:"subject"`
	Names     []string  `json:"names"`
	Issuer    string    `json:"issuer"`
	Serial    string    `json:"serial"`
	NotBefore time.Time `json:"notBefore"`
	NotAfter  time.Time `json:"notAfter"`
}

type crlStatus struct {
	Issuer     string    `json:"issuer"`
	NextUpdate time.Time `json:"nextUpdate"`
}

// authorityStatus is what is known of a CA.
type authorityStatus struct {
	Name       string         `json:"name"`
	State      authorityState `json:"state"`
	URL        string         `json:"url"`        // without user, password and query
	Trust      string         `json:"trust"`      // of its answers: anchored or onap
	Protection string         `json:"protection"` // of requests to it

	Anchors            int        `json:"anchors"`
	AnchorsExpire      *time.Time `json:"anchorsExpire"`      // the first of them
	SignerExpires      *time.Time `json:"signerExpires"`      // the certificate that signs requests
	TLSIdentityExpires *time.Time `json:"tlsIdentityExpires"` // the certificate for TLS towards the CA
	InFlight           int        `json:"inFlight"`
	MaxInFlight        int        `json:"maxInFlight"` // of its entry; 0: not set

	Requests    map[outcome]int `json:"requests"`
	LastSuccess *time.Time      `json:"lastSuccess"`
	LastError   *errorStatus    `json:"lastError"`
}

// authorityState is how a CA answered the last time that it was asked for a certificate.
type authorityState string

const (
	stateFailing  authorityState = "failing"  // it could not be reached, or its answer not be used
	stateRefusing authorityState = "refusing" // it refused
	stateUnasked  authorityState = "not asked yet"
	stateIssuing  authorityState = "issuing"
)

var worstFirst = []authorityState{stateFailing, stateRefusing, stateUnasked, stateIssuing}

func (s *authorityStatus) state() authorityState {
	switch {
	case s.LastError == nil && s.LastSuccess == nil:
		return stateUnasked
	case s.LastError == nil || s.LastSuccess != nil && s.LastSuccess.After(s.LastError.Time):
		return stateIssuing
	case s.LastError.Outcome == outcomeRefused:
		return stateRefusing
	}
	return stateFailing
}

// currentStatus collects the status.
func (h *Handler) currentStatus() serviceStatus {
	now := h.now().UTC()
	s := serviceStatus{
		Made: now, Version: h.cfg.Metrics.version, Go: runtime.Version(), Started: h.status.started,
		PolicySet: h.cfg.Policy != nil, Readings: h.readings(), CRLs: h.crls(),
		InFlight: h.admission.InProgress(), MaxInFlight: h.cfg.MaxInFlight,
		Connections: h.cfg.Metrics.connections.now(), Requests: h.record.requests(),
	}
	s.Problem = h.notReady()
	s.Ready = s.Problem == ""
	if leaf := h.ownCertificate(); leaf != nil {
		s.Certificate = &certificateStatus{pki.DN(leaf.RawSubject), boundNames(pki.Names(leaf)), pki.DN(leaf.RawIssuer),
			pki.Serial(leaf), leaf.NotBefore.UTC(), leaf.NotAfter.UTC()}
	}
	s.Authorities = h.authorities()
	s.MoreCAs = max(0, len(s.Authorities)-mostShown)
	s.Authorities = s.Authorities[:len(s.Authorities)-s.MoreCAs]
	return s
}

func (h *Handler) ownCertificate() *x509.Certificate {
	if h.cfg.Identity == nil {
		return nil
	}
	return h.cfg.Identity().Leaf
}

// readings are those of all that is configured.
func (h *Handler) readings() []readingStatus {
	kept := &h.cfg.Metrics.readings
	identity, replaced := kept.get(readIdentity)
	if identity.What = readIdentity; identity.Loaded == nil { // it has been in use since the start
		identity.Loaded = &h.status.started
	}
	if !replaced {
		identity.Tried = h.status.started
	}
	if leaf := h.ownCertificate(); leaf != nil {
		identity.Version = digest(sha256.Sum256(leaf.Raw)).String()
	}
	list := []readingStatus{identity}
	for _, what := range []readKind{readConfiguration, readPolicy, readCRLs, readTokenKeys} {
		if s, known := kept.get(what); known {
			list = append(list, s)
		}
	}
	return list
}

func (h *Handler) crls() []crlStatus {
	list := []crlStatus{}
	if set := h.cfg.Revocations.set(); set != nil {
		for _, c := range set.series() {
			list = append(list, crlStatus{c.issuer, c.NextUpdate.UTC()})
		}
	}
	slices.SortStableFunc(list, func(a, b crlStatus) int { return a.NextUpdate.Compare(b.NextUpdate) })
	return list[:min(len(list), mostShown)]
}

// authorities are those of the configuration, those with errors first.
func (h *Handler) authorities() []authorityStatus {
	list := []authorityStatus{}
	c, ok := h.cfg.Directory.(*Configuration)
	if !ok {
		return list
	}
	if loaded := c.current.Load(); loaded != nil {
		for name, a := range *loaded {
			s := authorityStatus{Name: name, MaxInFlight: a.maxInFlight, InFlight: h.admission.InProgressOf(name)}
			if known, ok := a.Authority.(interface{ facts() authorityFacts }); ok {
				s.add(known.facts())
			}
			h.record.fill(&s)
			s.State = s.state()
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, b authorityStatus) int {
		return cmp.Or(slices.Index(worstFirst, a.State)-slices.Index(worstFirst, b.State),
			strings.Compare(a.Name, b.Name))
	})
	return list
}

func (s *authorityStatus) add(f authorityFacts) {
	s.URL, s.Trust, s.Protection, s.Anchors = f.url, f.trust, f.protection, f.anchors
	s.AnchorsExpire, s.SignerExpires = timeOrNil(f.anchorsEnd), timeOrNil(f.signerEnd)
	s.TLSIdentityExpires = timeOrNil(f.tlsEnd)
}

// statusPage writes the status, ten times a second at most, however many ask.
type statusPage struct {
	started time.Time
	json    *rounds[[]byte]
	page    *rounds[[]byte]
	still   *rounds[[]byte] // the page that does not load itself again
}

func newStatusPage(h *Handler) statusPage {
	return statusPage{
		started: h.now().UTC(),
		json: newScrapes(func() []byte {
			text, err := json.MarshalIndent(h.currentStatus(), "", "  ")
			if err != nil { // a status always marshals
				panic(err)
			}
			return append(text, '\n')
		}),
		page:  newScrapes(func() []byte { return h.currentStatus().html(refreshSeconds) }),
		still: newScrapes(func() []byte { return h.currentStatus().html(0) }),
	}
}

// refreshSeconds is how often the page loads itself again.
const refreshSeconds = 30

var (
	//go:embed status.html
	statusTemplate string
	//go:embed style.css
	styleSheet string
)

var statusHTML = template.Must(template.New("").Funcs(template.FuncMap{"outcome": outcomeSign}).
	Parse(strings.Replace(statusTemplate, "STYLE", styleSheet, 1)))

// html is the page. It loads itself again after so many seconds; 0: it does not.
func (s serviceStatus) html(refresh int) []byte {
	var page bytes.Buffer
	if err := statusHTML.Execute(&page, statusView{s, refresh}); err != nil { // it was executed in a test
		panic(err)
	}
	return page.Bytes()
}

// statusView is what the template sees.
type statusView struct {
	serviceStatus
	Refresh int
}

// sign is how something stands. The page shows it as a symbol and a colour beside the words.
type sign string

const (
	signGood    sign = "good"
	signWarning sign = "warning"
	signBad     sign = "bad"
	signNone    sign = "none"
)

func outcomeSign(o outcome) sign {
	switch o {
	case outcomeIssued, outcomeOK:
		return signGood
	case outcomeFailed, outcomePanic, outcomeNotReady:
		return signBad
	}
	return signWarning
}

// Sign is that of a CA.
func (s authorityStatus) Sign() sign {
	return map[authorityState]sign{stateFailing: signBad, stateRefusing: signWarning, stateUnasked: signNone,
		stateIssuing: signGood}[s.State]
}

// Sign is that of a reading: without anything in use it is bad.
func (s readingStatus) Sign() sign {
	switch {
	case s.Loaded == nil:
		return signBad
	case s.Fault != "":
		return signWarning
	}
	return signGood
}

// Short are the first digits of the version.
func (s readingStatus) Short() string { return s.Version[:min(len(s.Version), 12)] }

// Counts are the requests of a CA by their outcome, in a fixed order.
func (s authorityStatus) Counts() (list []outcomeCount) {
	for _, o := range slices.Sorted(maps.Keys(s.Requests)) {
		list = append(list, outcomeCount{o, s.Requests[o]})
	}
	return list
}

type outcomeCount struct {
	Outcome outcome
	Count   int
}

// expiry is when something expires.
type expiry struct {
	When time.Time
	Text string
	Sign sign
}

func (v statusView) expiry(end time.Time, warn time.Duration) expiry {
	left := end.Sub(v.Made)
	switch {
	case left <= 0:
		return expiry{end, "expired " + roughly(-left) + " ago", signBad}
	case left < warn:
		return expiry{end, "expires in " + roughly(left), signWarning}
	}
	return expiry{end, "expires in " + roughly(left), signGood}
}

const day = 24 * time.Hour

// Until is the expiry of a certificate: it warns in the last third of its validity, or in the last
// 30 days of one that is longer valid.
func (v statusView) Until(begin, end time.Time) expiry {
	return v.expiry(end, min(30*day, end.Sub(begin)/3))
}

// Expiry is that of something of which the beginning is not shown.
func (v statusView) Expiry(end time.Time) expiry { return v.expiry(end, 30*day) }

// CRLExpiry is that of a CRL.
func (v statusView) CRLExpiry(end time.Time) expiry { return v.expiry(end, day) }

// Ago is how long ago something was.
func (v statusView) Ago(t time.Time) string {
	if passed := v.Made.Sub(t); passed >= time.Second {
		return roughly(passed) + " ago"
	}
	return "just now"
}

// Uptime is the time since the start.
func (v statusView) Uptime() string { return roughly(v.Made.Sub(v.Started)) }

// Stamp is a time for people.
func (v statusView) Stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// Clock is a time of today, or another time with its date.
func (v statusView) Clock(t time.Time) string {
	if t, now := t.UTC(), v.Made; t.YearDay() == now.YearDay() && t.Year() == now.Year() {
		return t.Format("15:04:05")
	}
	return t.UTC().Format("2006-01-02 15:04:05")
}

// ISO is a time for programs.
func (v statusView) ISO(t time.Time) string { return pki.Stamp(t) }

// Clients are the kinds of connections with their numbers, the API's first.
func (v statusView) Clients() (list []clientCount) {
	for _, kind := range []struct{ key, name string }{{"verified", "with a certificate or token"},
		{"unverified", "not verified yet"}, {"plain", "this port"}} {
		if states, ok := v.Connections[kind.key]; ok {
			n := 0
			for _, count := range states {
				n += count
			}
			list = append(list, clientCount{kind.name, n})
		}
	}
	return list
}

type clientCount struct {
	Name  string
	Count int
}

// roughly is a duration in its largest unit, or in two where the first is small.
func roughly(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 2*day:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d/day))
}
