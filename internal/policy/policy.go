// Package policy decides who may ask a certification authority for what. A policy is a list of
// rules in a YAML file (Parse). A client is who it was authenticated to be (Client), and what it
// asks for are the bytes that go to the authority (ReadCSR), not a parser's view of them.
//
// The package reads no files, opens no connections and knows neither HTTP nor CMP.
package policy

import (
	"fmt"
	"slices"
	"time"
)

// Operation is what a client wants done.
type Operation string

// The operations that a rule can allow.
const (
	Enroll Operation = "enroll" // a certificate, by the REST API
	Update Operation = "update" // the same for one that replaces another
	CMP    Operation = "cmp"    // a certificate, by a CMP message
	Revoke Operation = "revoke"
	Reload Operation = "reload" // of the service's configuration
)

var operations = []Operation{Enroll, Update, CMP, Revoke, Reload}

// Operations are all of them.
func Operations() []Operation { return slices.Clone(operations) }

// Certifies says whether the operation ends in a certificate, so that names, key and usages count.
func (o Operation) Certifies() bool { return o == Enroll || o == Update || o == CMP }

// Policy is what a policy file says. It does not change.
type Policy struct {
	WarnOnly bool // names, keys, usages and rates are judged, but nothing is refused for them
	Rules    []*Rule
	index    index
}

// Rule allows some clients something.
type Rule struct {
	Name       string
	operations operationSet
	cas        []pattern
	sharedCAs  int               // from 1, for a list that several rules have: the answer to it is remembered
	clients    []clientCondition // one of them must hold
	allow      allowance
	rate       Rate
}

// operationSet has a bit for each operation.
type operationSet uint8

func setOf(list ...Operation) (set operationSet) {
	for _, operation := range list {
		if i := slices.Index(operations, operation); i >= 0 {
			set |= 1 << i
		}
	}
	return set
}

// Rate bounds how often one client may use a rule. The zero Rate is no bound.
type Rate struct {
	PerMinute int
	Burst     int // at once, after a time without requests
}

// Decision is what a policy says to one request.
type Decision struct {
	Allowed bool
	// Warned: the request is allowed because the policy only warns. Reason says why it would be refused.
	Warned bool
	// Wait is how long the client has to wait, where it asked too often. The request is refused then,
	// or Warned.
	Wait time.Duration
	Rule string // that decided, or was closest to it; "": none fits
	// Reason says why not, as a sentence without an end: for the client, and for logs. It holds names
	// that the request has, and nothing about other clients.
	Reason string
}

// Question is a request as far as a policy looks at it.
type Question struct {
	Client    Client
	CA        string // "" for operations without one
	Operation Operation
	Asked     *Asked // nil for operations that end in no certificate, and for messages that ask for none
	At        time.Time
}

// Decide answers a question. Rules are tried in their order: the first one whose clients, CA and
// operation fit, and that allows all that is asked for, decides. limits counts what is used of its
// rate; nil counts nothing.
func (p *Policy) Decide(q Question, limits *Limits) Decision {
	who := newSubject(q.Client)
	who.answers = make([]answer, p.index.shared)
	fit := fit{question: q, operations: setOf(q.Operation)}
	var buffer [64]int
	places := p.index.candidates(buffer[:0], who)
	fitting := places[:0]
	for _, at := range places {
		rule := p.Rules[at]
		if !rule.isFor(who) {
			continue
		}
		fit.client = true
		if !rule.fits(who, &fit) {
			continue
		}
		if q.Asked == nil || rule.allow.allows(q.Asked, who) {
			return p.limit(rule, q, limits)
		}
		fitting = append(fitting, at)
	}
	if len(fitting) == 0 {
		return Decision{Reason: fit.reason()}
	}
	closest, refused := p.closestRule(fitting, q.Asked, who)
	d := Decision{Rule: closest.Name, Reason: refused.String()}
	d.Warned = p.WarnOnly && q.Operation.Certifies()
	d.Allowed = d.Warned
	return d
}

// limit allows what a rule allows, as often as its rate lets it.
func (p *Policy) limit(rule *Rule, q Question, limits *Limits) Decision {
	d := Decision{Allowed: true, Rule: rule.Name}
	counts := q.Asked != nil || !q.Operation.Certifies()
	if rule.rate == (Rate{}) || limits == nil || !counts {
		return d
	}
	if d.Wait = limits.take(rule, q); d.Wait == 0 {
		return d
	}
	d.Reason = fmt.Sprintf("more requests than are allowed: %d a minute", rule.rate.PerMinute)
	d.Warned = p.WarnOnly && q.Operation.Certifies()
	d.Allowed = d.Warned
	return d
}

func (r *Rule) isFor(who *subject) bool {
	for i := range r.clients {
		if r.clients[i].holds(who) {
			return true
		}
	}
	return false
}

// fit remembers how far rules fitted, for the reason when none did.
type fit struct {
	question              Question
	operations            operationSet // the one that is asked for
	client, ca, operation bool
}

func (r *Rule) fits(who *subject, f *fit) bool {
	ca := f.question.Operation == Reload || who.remember(r.sharedCAs, func() bool {
		return matchesAny(r.cas, f.question.CA, nil)
	})
	operation := r.operations&f.operations != 0
	f.ca = f.ca || ca
	f.operation = f.operation || operation
	return ca && operation
}

func (f fit) reason() string {
	switch {
	case !f.client:
		return "no rule is for this client"
	case !f.ca:
		return fmt.Sprintf("no rule lets this client use the CA %q", shorten(f.question.CA))
	case !f.operation:
		return fmt.Sprintf("no rule allows this client the operation %s", f.question.Operation)
	}
	return fmt.Sprintf("no rule allows this client the operation %s at the CA %q", f.question.Operation,
		shorten(f.question.CA))
}

// mostRefusals are counted, so that a request with thousands of names is as cheap as one with a hundred.
const mostRefusals = 100

// closestRule is the one that refuses fewest parts of a request, with the first part that it refuses.
func (p *Policy) closestRule(fitting []int, asked *Asked, who *subject) (closest *Rule, refused refusal) {
	fewest := mostRefusals
	for _, at := range fitting {
		rule := p.Rules[at]
		first, count := rule.allow.refuses(asked, who, fewest)
		if closest == nil || count < fewest {
			closest, refused, fewest = rule, first, count
		}
	}
	return closest, refused
}
