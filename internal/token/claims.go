package token

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Claims are what counts of a service account token.
type Claims struct {
	Issuer                                       string // iss
	Namespace, ServiceAccount, ServiceAccountUID string
	Pod, PodUID                                  string // "": it is not bound to a pod
	ID                                           string // jti, for audits; may be ""

	IssuedAt, NotBefore, Expires time.Time // NotBefore may be zero
}

// Subject is the claim sub: system:serviceaccount:NAMESPACE:NAME.
func (c Claims) Subject() string {
	return "system:serviceaccount:" + c.Namespace + ":" + c.ServiceAccount
}

const (
	maxClaims = 256 // values; a token of Kubernetes has about 25
	maxText   = 253 // characters, as of names in Kubernetes

	maxLifetime = 24 * time.Hour
	leeway      = 60 * time.Second // for clocks
)

// Names in Kubernetes: a namespace is an RFC 1123 label, the others are RFC 1123 subdomains. A name
// with a colon could stand for another one in sub.
var (
	label     = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	subdomain = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)
	visible   = regexp.MustCompile(`^[!-~]+$`)
)

// payload reads the claims of a token. The first thing that is wrong stays.
type payload struct {
	members map[string]any
	err     *Error
}

func readPayload(data []byte) (*payload, *Error) {
	members, err := readObject(data, maxClaims)
	if err != nil {
		return nil, refuse(ReasonMalformed, "has a payload that %s", err)
	}
	return &payload{members: members}, nil
}

// reject keeps the first fault.
func (p *payload) reject(format string, args ...any) {
	if p.err == nil {
		p.err = refuse(ReasonClaims, format, args...)
	}
}

// text reads a member of an object, which is at a place such as "kubernetes.io.".
func (p *payload) text(of map[string]any, place, name string, form *regexp.Regexp, want string) string {
	value, present := of[name]
	text, ok := value.(string)
	switch {
	case !present:
		p.reject("has no claim %s%s, want %s", place, name, want)
	case !ok:
		p.reject("has %s as the claim %s%s, want %s", kind(value), place, name, want)
	case len(text) > maxText || !form.MatchString(text):
		p.reject("has a claim %s%s that is not %s", place, name, want)
	default:
		return text
	}
	return ""
}

// object reads a member that is an object; there may be none when it is optional.
func (p *payload) object(of map[string]any, place, name string, optional bool) map[string]any {
	value, present := of[name]
	object, ok := value.(map[string]any)
	switch {
	case !present && optional:
	case !present:
		p.reject("has no claim %s%s, want a token of a Kubernetes service account", place, name)
	case !ok:
		p.reject("has %s as the claim %s%s, want an object", kind(value), place, name)
	}
	return object
}

func (p *payload) issuer() string {
	value, present := p.members["iss"]
	issuer, ok := value.(string)
	switch {
	case !present:
		p.reject("has no claim iss")
	case !ok:
		p.reject("has %s as the claim iss, want a text", kind(value))
	}
	return issuer
}

// audiences reads aud, which is a text or a list of texts (RFC 7519, 4.1.3).
func (p *payload) audiences() (audiences []string) {
	switch value := p.members["aud"].(type) {
	case string:
		return []string{value}
	case []any:
		for _, element := range value {
			audience, ok := element.(string)
			if !ok {
				p.reject("has %s in the claim aud, want texts", kind(element))
			}
			audiences = append(audiences, audience)
		}
	default:
		if _, present := p.members["aud"]; present {
			p.reject("has %s as the claim aud, want a text or a list of texts", kind(value))
		} else {
			p.reject("has no claim aud")
		}
	}
	return audiences
}

// time reads a NumericDate (RFC 7519, 2), seconds since 1970, of which there may be parts. It is
// zero where there is none.
func (p *payload) time(name string, optional bool) time.Time {
	value, present := p.members[name]
	number, ok := value.(json.Number)
	switch {
	case !present && optional:
		return time.Time{}
	case !present:
		p.reject("has no claim %s, want a time in seconds", name)
		return time.Time{}
	case !ok:
		p.reject("has %s as the claim %s, want a number of seconds", kind(value), name)
		return time.Time{}
	}
	const latest = 253402300799 // the end of the year 9999
	seconds, err := strconv.ParseFloat(number.String(), 64)
	if err != nil || !(seconds >= 0 && seconds <= latest) {
		p.reject("has a claim %s that is no time from 1970 to 9999", name)
		return time.Time{}
	}
	whole, part := math.Modf(seconds)
	return time.Unix(int64(whole), int64(part*1e9)).UTC()
}

// account reads who the token is for.
func (p *payload) account(c *Claims) {
	const place = "kubernetes.io."
	kubernetes := p.object(p.members, "", "kubernetes.io", false)
	c.Namespace = p.text(kubernetes, place, "namespace", label, "the name of a namespace")
	account := p.object(kubernetes, place, "serviceaccount", false)
	c.ServiceAccount, c.ServiceAccountUID = p.reference(account, place+"serviceaccount.")
	if pod := p.object(kubernetes, place, "pod", true); pod != nil {
		c.Pod, c.PodUID = p.reference(pod, place+"pod.")
	}
	if _, present := p.members["jti"]; present {
		c.ID = p.text(p.members, "", "jti", visible, "a short text of visible characters")
	}
	if sub, ok := p.members["sub"].(string); p.err == nil && (!ok || sub != c.Subject()) {
		p.reject("has a claim sub that is not system:serviceaccount:NAMESPACE:NAME with the names in kubernetes.io")
	}
}

func (p *payload) reference(of map[string]any, place string) (name, uid string) {
	return p.text(of, place, "name", subdomain, "the name of an object"),
		p.text(of, place, "uid", visible, "a UID")
}

// Decode reads the claims of a token, and its audiences, and verifies neither the signature nor
// the times: nothing of it may be believed. It is for tools that explain a token. Errors are of
// type *Error.
func Decode(token string) (Claims, []string, error) {
	parts, refused := split(token)
	if refused != nil {
		return Claims{}, nil, refused
	}
	p, refused := readPayload(parts.payload)
	if refused != nil {
		return Claims{}, nil, refused
	}
	c := Claims{Issuer: p.issuer()}
	audiences := p.audiences()
	p.times(&c)
	p.account(&c)
	if p.err != nil {
		return Claims{}, nil, p.err
	}
	return c, audiences, nil
}

func (p *payload) times(c *Claims) {
	c.Expires, c.IssuedAt, c.NotBefore = p.time("exp", false), p.time("iat", false), p.time("nbf", true)
}

// listed is a list of texts from a token, fit for a message.
func listed(texts []string) string {
	var shown []string
	for _, text := range texts[:min(len(texts), 3)] {
		shown = append(shown, shorten(text))
	}
	if more := len(texts) - len(shown); more > 0 {
		shown = append(shown, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(shown, ", ")
}
