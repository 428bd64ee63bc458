package cmp

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// play is an exchange between a client and a CA that answers honestly but for what commands say. A
// text has one on each line that begins with "> ":
//
//	make NAME: SUBJECT; ...      a certificate with a key; see identity
//	grant SUBJECT; ...           the certificate that the CA issues, made likewise
//	client FIELD = VALUE         a field of the client's Config
//	client asks for email        as extended key usage
//	client has KIND              of key
//	answer PATH = VALUE          a part of the answers, before they are protected
//	answer is BODY               in place of the honest body; several are sent one after the other
//	answer takes TIME
//	signed [by NAME], signed for NAME, protected by PROTECTION [under SECRET]; see also pbmac1
//	sent PATH = VALUE            a part of the answers, as someone on the way changes it
//
// After their first word, the last five may have "to KIND" or "to request NUMBER", for some of the
// answers only.
type play struct {
	t      testing.TB
	named  map[string]*identity
	csr    *x509.CertificateRequest
	config Config
	log    bytes.Buffer
	steps  []step
	bodies map[string][]string // by the kind of request; empty: any

	mu       sync.Mutex
	requests []*PKIMessage
	secret   *MACKeys
}

// step changes answers at one stage of their making.
type step struct {
	stage stage
	to    string // kind or number of the request; empty: any
	do    func(m *answer)
}

type stage int

const (
	made stage = iota
	protecting
	sent
)

// answer is a message on its way back.
type answer struct {
	*PKIMessage
	Bytes     []byte // in place of the message
	Status    int    // of HTTP
	MediaType string

	request *PKIMessage
}

func newPlay(t testing.TB, commands string) *play {
	t.Helper()
	client := newKey()
	root := newIdentity("CN=Test Root", nil, asCA)
	ca := newIdentity(testRecipient, root, asCA)
	p := &play{t: t, csr: newCSR(client), bodies: map[string][]string{},
		secret: NewMACKeys([]byte(testSecret)), named: map[string]*identity{"root": root, "ca": ca,
			"old": newIdentity("CN=leaf,O=Example", ca), "client": {client, nil},
			"large": {largeKey(), nil}}}
	p.named["issued"] = p.leaf("")
	p.config = testConfig(p, &p.log)
	for line := range strings.Lines(commands) {
		p.command(strings.TrimSpace(strings.TrimPrefix(line, "> ")))
	}
	return p
}

var largeKey = sync.OnceValue(fixture.OversizedRSA)

func (p *play) command(text string) {
	p.t.Helper()
	verb, rest, _ := strings.Cut(text, " ")
	var to string
	if after, found := strings.CutPrefix(rest, "to "); found {
		to, rest, _ = strings.Cut(strings.TrimPrefix(after, "request "), " ")
	}
	step := func(stage stage, do func(*answer)) { p.steps = append(p.steps, step{stage, to, do}) }
	object, words, _ := strings.Cut(rest, " ")
	path, value, isPart := strings.Cut(rest, " = ")
	switch {
	case verb == "make":
		name, words, _ := strings.Cut(rest, ": ")
		p.named[name] = p.identity(words)
	case verb == "grant":
		p.named["issued"] = p.leaf(rest)
	case verb == "client" && isPart:
		p.set(&p.config, path, value)
	case verb == "client" && object == "has": // another kind of key
		p.named["client"].key = fixture.NewKey(words)
		p.csr, p.named["issued"] = newCSR(p.named["client"].key), p.leaf("")
	case text == "client asks for email":
		p.csr = newCSR(p.named["client"].key, emailOnly)
	case verb == "answer" && object == "is":
		p.bodies[to] = append(p.bodies[to], words)
	case verb == "answer" && object == "takes":
		step(made, func(*answer) { time.Sleep(fixture.Must(time.ParseDuration(words))) })
	case verb == "answer" && isPart:
		step(made, func(a *answer) { p.set(a, path, value) })
	case verb == "sent" && isPart:
		step(sent, func(a *answer) { p.set(a, path, value) })
	case verb == "signed":
		step(protecting, func(a *answer) {
			signer := p.named["ca"]
			if words != "" {
				signer = p.named[words]
			}
			if object == "by" {
				a.SetSigner(signer.cert, nil)
			}
			require.NoError(p.t, ProtectSignature(a.PKIMessage, signer.key))
		})
	case verb == "protected":
		protection, secret, isOther := strings.Cut(words, " under ")
		if !isOther {
			secret = testSecret
		}
		keys := NewMACKeys([]byte(strings.Trim(secret, `"`)))
		mac := newPBM(ProtectionPBMSHA256, crypto.SHA256)
		if parameters, found := strings.CutPrefix(protection, "pbmac1 "); found {
			mac = pbmac1(strings.Fields(parameters))
		} else if mac.Hash = crypto.SHA1; protection != "openssl" { // whose key is by SHA-256
			mac = fixture.Must(NewMAC(Protection(protection)))
		}
		step(protecting, func(a *answer) { require.NoError(p.t, keys.Protect(a.PKIMessage, mac)) })
	default:
		require.Equal(p.t, "request", verb, "unknown command %q", text)
	}
}

// on has answers changed by what has no words.
func (p *play) on(stage stage, do func(*answer)) { p.steps = append(p.steps, step{stage, "", do}) }

// body is "KIND STATUS..., ..." with one status for each element, "pollRep CERTREQID SECONDS:
// REASON, ...", or "granted".
func (p *play) body(request *PKIMessage, words string) PKIBody {
	name, rest, _ := strings.Cut(words, " ")
	elements := strings.Split(rest, ", ")
	switch name {
	case "granted":
		return p.honest(request)
	case "pollRep":
		return PKIBody{BodyPollRep, PollRepContent(fixture.Each(elements, pollRep))}
	case "pkiconf":
		return PKIBody{BodyPKIConf, PKIConfirmContent{}}
	case "error":
		return PKIBody{BodyError, &ErrorMsgContent{StatusInfo: statusOf(rest)}}
	case "rp":
		return PKIBody{BodyRP, &RevRepContent{Status: fixture.Each(elements, statusOf)}}
	case "reply":
		name = answerTypes[request.Body.Type][0].String()
	}
	response := func(words string) CertResponse { return CertResponse{Status: statusOf(words)} }
	kind := fixture.ByName[BodyType](name)
	return PKIBody{kind, &CertRepMessage{Response: fixture.Each(elements, response)}}
}

// honest is the body of an honest answer; the root is in caPubs.
func (p *play) honest(request *PKIMessage) PKIBody {
	switch kind := request.Body.Type; kind {
	case BodyIR, BodyCR, BodyKUR:
		pair := &CertifiedKeyPair{Certificate: p.named["issued"].cert.Raw}
		return PKIBody{answerTypes[kind][0], &CertRepMessage{CAPubs: [][]byte{p.named["root"].cert.Raw},
			Response: []CertResponse{{CertifiedKeyPair: pair}}}}
	case BodyCertConf:
		return PKIBody{BodyPKIConf, PKIConfirmContent{}}
	case BodyRR:
		return p.body(request, "rp accepted")
	}
	return p.body(request, "error rejection badRequest: unexpected request")
}

func (p *play) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	assert.Equal(p.t, http.MethodPost, r.Method)
	assert.Equal(p.t, MediaType, r.Header.Get("Content-Type"))
	request := fixture.Must(ParsePKIMessage(fixture.Must(io.ReadAll(r.Body))))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests = append(p.requests, request)
	a := p.answer(request)
	w.Header().Set("Content-Type", a.MediaType)
	w.WriteHeader(a.Status)
	_, _ = w.Write(a.Bytes)
}

func (p *play) answer(request *PKIMessage) *answer {
	ca := p.named["ca"].cert
	a := &answer{request: request, Status: http.StatusOK, MediaType: MediaType}
	a.PKIMessage = &PKIMessage{Body: p.honest(request), ExtraCerts: [][]byte{ca.Raw},
		Header: request.Header.Answer(DirectoryName(ca.RawSubject), testNow)}
	for _, kind := range []string{request.Body.Type.String(), ""} {
		if bodies := p.bodies[kind]; len(bodies) > 0 {
			a.Body = p.body(p.requests[0], bodies[0])
			p.bodies[kind] = bodies[min(1, len(bodies)-1):] // the last one answers all that follow
			break
		}
	}
	p.run(made, a)
	if !p.run(protecting, a) {
		mac := fixture.Must(NewMAC(ProtectionPBMSHA256))
		if request.MACProtected() { // with its parameters (RFC 9810, 5.1.3.1)
			mac = fixture.Must(p.secret.Verify(request))
		}
		require.NoError(p.t, p.secret.Protect(a.PKIMessage, mac))
	}
	p.run(sent, a)
	if a.Bytes == nil {
		a.Bytes = fixture.Must(a.Marshal())
	}
	return a
}

// run runs the steps of a stage for an answer; of those that protect it, the last one counts.
func (p *play) run(stage stage, a *answer) (ran bool) {
	kind, number := a.request.Body.Type.String(), strconv.Itoa(len(p.requests))
	for _, s := range p.steps {
		if s.stage == stage && (s.to == "" || s.to == kind || s.to == number) {
			s.do(a)
			ran = true
		}
	}
	return ran
}

func (p *play) request() Request { return Request{CSR: p.csr, Key: p.named["client"].key} }

// send sends a request of a kind.
func (p *play) send(kind BodyType) (result Result, err error) {
	c := fixture.Must(New(p.config))
	switch kind {
	case BodyCR:
		return c.Certify(p.t.Context(), p.request())
	case BodyKUR:
		old := p.named["old"].signer()
		old.Chain = []*x509.Certificate{p.named["ca"].cert}
		return c.UpdateKey(p.t.Context(), p.request(), old)
	case BodyRR:
		return Result{}, c.Revoke(p.t.Context(), p.named["old"].cert)
	}
	return c.Initialize(p.t.Context(), p.request())
}

// kinds lists what was asked, in order, with the reasons of rejections and unusual certReqIds of
// pollReq.
func (p *play) kinds() string {
	return strings.Join(fixture.Each(p.requests, func(request *PKIMessage) string {
		kind := request.Body.Type.String()
		if statuses, ok := request.Body.Content.(CertConfirmContent); ok && len(statuses) == 0 {
			kind += " (of nothing)"
		} else if ok && statuses[0].StatusInfo != nil {
			kind += " (" + strings.Join(statuses[0].StatusInfo.FailInfo.Names(), " ") + ")"
		}
		ids, ok := request.Body.Content.(PollReqContent)
		if ok && !slices.Equal(ids, PollReqContent{0}) {
			kind += fmt.Sprint(" for ", ids)
		}
		return kind
	}), ", ")
}
