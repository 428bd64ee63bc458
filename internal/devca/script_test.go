package devca_test

import (
	"bytes"
	"crypto"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/devca"
	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
)

// TestCA_scripts plays testdata/scripts: each line that begins with "> " is a command, and what is
// below it is what came of it.
func TestCA_scripts(t *testing.T) {
	golden.Play(t, "scripts/*.txt", func(t *testing.T, _, commands string) (got string) {
		s := &script{t: t, now: time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)}
		s.named = map[string]*cmp.Signer{}
		for command := range strings.Lines(commands) {
			got += command + s.command(strings.TrimSpace(command[2:]))
		}
		return got
	})
}

// script is a conversation with a CA. Its commands are
//
//	ca FIELD = VALUE; ...        makes the CA, at first; faults are a field like any other
//	faults FAULT,...             of the CA as it is
//	enrol NAME [elsewhere]       gets a certificate by that name, elsewhere from another CA
//	KIND; CHANGE; ...            sends a message, see change
//	again; CHANGE; ...           sends the last one once more, with a new nonce
//	post PATH BODY as MEDIATYPE  posts something
//	get PATH                     asks for something
//	at TIME, wait TIME, revoked? NAME, stats
//
// certConf, pollReq and error go on with the transaction of the last answer that was not an error.
type script struct {
	t      testing.TB
	ca     *devca.CA
	now    time.Time
	named  map[string]*cmp.Signer // "leaf" is the last certificate
	key    crypto.Signer          // of the last request for a certificate
	first  *cmp.PKIMessage        // request
	answer *cmp.PKIMessage        // the last one that may be gone on with
	id     int64                  // of the last certificate
}

func (s *script) command(text string) string {
	verb, rest, _ := strings.Cut(text, " ")
	if s.ca == nil && verb != "ca" && verb != "at" {
		s.command("ca")
	}
	switch verb {
	case "ca":
		config := devca.Config{Now: func() time.Time { return s.now }}
		for part := range strings.SplitSeq(rest, "; ") {
			switch path, value, _ := strings.Cut(part, " = "); path {
			case "":
			case "Faults":
				config.Faults = fixture.Must(devca.ParseFaults(value))
			default:
				fixture.SetPart(fixture.Part(&config, path), value)
			}
		}
		var err error
		if s.ca, err = devca.New(config); err != nil {
			return err.Error() + "\n"
		}
		s.named["root"] = &cmp.Signer{Certificate: s.ca.Root()}
		s.named["issuing"] = &cmp.Signer{Certificate: s.ca.Issuing()}
		return ""
	case "faults":
		s.ca.SetFaults(fixture.Must(devca.ParseFaults(rest)))
		return ""
	case "enrol":
		name, elsewhere, _ := strings.Cut(rest, " ")
		other := &script{t: s.t, ca: s.ca, now: s.now, named: map[string]*cmp.Signer{}}
		if elsewhere != "" {
			other.ca = newCA(devca.Config{Now: func() time.Time { return s.now }})
		}
		other.command("ir; implicitly")
		s.named[name] = other.named["leaf"]
		return ""
	case "at":
		s.now = fixture.Must(time.Parse(time.RFC3339, rest))
		return ""
	case "wait":
		s.now = s.now.Add(fixture.Must(time.ParseDuration(rest)))
		return ""
	case "post":
		return s.post(rest)
	case "get":
		recorder := httptest.NewRecorder()
		s.ca.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, rest, nil))
		return fmt.Sprintf("%d, allowed is %s\n", recorder.Code, recorder.Header().Get("Allow"))
	case "revoked?":
		return fmt.Sprintln(s.ca.Revoked(s.named[rest].Certificate.SerialNumber))
	case "stats":
		stats := s.ca.Stats()
		return fmt.Sprintf("%d issued, %d updated, %d confirmed, %d revoked, %d polls\n",
			stats.Issued, stats.Updated, stats.Confirmed, stats.Revoked, stats.Polls)
	}
	return s.exchange(strings.Split(text, "; "))
}

// post posts "PATH BODY [as MEDIATYPE]" and says what the answer is.
func (s *script) post(words string) (got string) {
	path, words, _ := strings.Cut(words, " ")
	body, mediaType, isOther := strings.Cut(words, " as ")
	if !isOther {
		mediaType = cmp.MediaType
	}
	content := []byte(body)
	switch body {
	case "ir":
		content = fixture.Must(protect(s.t, ir(s.t)).Marshal())
	case "too much":
		content = make([]byte, cmp.MaxMessageSize+1)
	}
	defer func() {
		if failure := recover(); failure == http.ErrAbortHandler {
			got = "the CA hangs up\n"
		} else if failure != nil {
			panic(failure)
		}
	}()
	recorder := post(s.ca, path, strings.Trim(mediaType, `"`), content)
	text := fmt.Sprintf("%d %s: ", recorder.Code, recorder.Header().Get("Content-Type"))
	answer, err := cmp.ParsePKIMessage(recorder.Body.Bytes())
	if err != nil {
		return text + recorder.Body.String()
	}
	if cmp.VerifySignature(answer, s.ca.Issuing().PublicKey) == nil {
		return text + outcome(answer) + "; signed\n"
	}
	return text + outcome(answer) + "\n"
}

// sending is a message in the making.
type sending struct {
	*cmp.PKIMessage
	Status  cmp.CertStatus // in certConf
	Request cmp.CertReqMsg // in ir, cr and kur

	MAC    cmp.Protection // none: the message is not protected by one
	Secret string

	key, proof crypto.Signer
	signer     *cmp.Signer // in place of the MAC
	later      []string    // changes once it is protected
}

func (s *script) exchange(words []string) string {
	m := &sending{key: newKey(), MAC: cmp.ProtectionPBMSHA256, Secret: devca.DefaultSecret,
		PKIMessage: message(cmp.BodyIR, nil)}
	if words[0] == "again" {
		m.Header.TransactionID = s.first.Header.TransactionID
	} else {
		m.Body.Type = fixture.ByName[cmp.BodyType](words[0])
	}
	for _, change := range words[1:] {
		if name, found := strings.CutPrefix(change, "key "); found {
			if m.key = fixture.OversizedRSA(); name != "large" {
				m.key = fixture.NewKey(name)
			}
		}
	}
	m.proof = m.key
	s.fill(m)
	for _, change := range words[1:] {
		s.change(m, change)
	}
	s.finish(m)
	s.protect(m)
	for _, change := range m.later {
		s.change(m, change)
	}
	return s.describe(m, send(s.t, s.ca, m.PKIMessage))
}

// fill gives a message its content, before it is changed.
func (s *script) fill(m *sending) {
	switch m.Body.Type {
	case cmp.BodyIR, cmp.BodyCR, cmp.BodyKUR:
		m.Request, s.key = template(m.key), m.key
	case cmp.BodyP10CR:
		m.Body.Content, s.key = cmp.CertificationRequest(csr(m.key).Raw), m.key
	case cmp.BodyCertConf:
		if leaf, found := s.named["leaf"]; found {
			m.Status.CertHash, _ = cmp.CertHash(leaf.Certificate)
			m.Status.CertReqID = s.id
		}
	case cmp.BodyPollReq:
		m.Body.Content = cmp.PollReqContent{0}
	case cmp.BodyError:
		info := cmp.Rejection("I give up", cmp.FailSystemFailure)
		m.Body.Content = &cmp.ErrorMsgContent{StatusInfo: info}
	case cmp.BodyRR:
		issuer := s.ca.Issuing().RawSubject
		m.Body.Content = cmp.RevReqContent{{CertDetails: cmp.CertTemplate{Issuer: issuer}}}
	case cmp.BodyGenM, cmp.BodyGenP:
		m.Body.Content = cmp.GeneralContent{}
	case cmp.BodyPKIConf:
		m.Body.Content = cmp.PKIConfirmContent{}
	default: // nested
		m.Body.Content = cmp.RawContent{0x30, 0}
	}
	following := []cmp.BodyType{cmp.BodyCertConf, cmp.BodyPollReq, cmp.BodyError}
	if slices.Contains(following, m.Body.Type) {
		last := s.answer.Header
		m.Header.TransactionID, m.Header.RecipNonce = last.TransactionID, last.SenderNonce
	}
}

// finish makes the content from what was changed.
func (s *script) finish(m *sending) {
	if m.Body.Content != nil {
		return
	}
	if m.Body.Type == cmp.BodyCertConf {
		m.Body.Content = cmp.CertConfirmContent{m.Status}
		return
	}
	if m.Request.POPO == nil && m.proof != nil {
		require.NoError(s.t, m.Request.SignPOPO(m.proof))
	}
	m.Body.Content = cmp.CertReqMessages{m.Request}
}

func (s *script) protect(m *sending) {
	switch {
	case m.signer != nil:
		require.NoError(s.t, cmp.ProtectSignature(m.PKIMessage, m.signer.Key))
	case m.MAC != "":
		mac := fixture.Must(cmp.NewMAC(m.MAC))
		require.NoError(s.t, cmp.NewMACKeys([]byte(m.Secret)).Protect(m.PKIMessage, mac))
	}
}

// change changes a message: "PATH = VALUE" or what the cases say.
func (s *script) change(m *sending, text string) {
	verb, rest, _ := strings.Cut(text, " ")
	path, value, isPart := strings.Cut(text, " = ")
	switch {
	case verb == "sent": // once it is protected
		m.later = append(m.later, rest)
	case isPart:
		s.set(m, path, value)
	case verb == "key": // that is certified
	case verb == "proof": // of possession
		m.proof, m.Request.POPO = map[string]crypto.Signer{"other": newKey()}[rest],
			map[string]*cmp.ProofOfPossession{"raVerified": {RAVerified: true}}[rest]
	case verb == "extension":
		critical, rest, _ := strings.Cut(rest, " ")
		id, value, _ := strings.Cut(rest, " ")
		template := &m.Request.CertReq.CertTemplate
		template.Extensions = append(template.Extensions, pkix.Extension{Id: oid(id),
			Critical: critical == "critical", Value: fixture.Must(hex.DecodeString(value))})
	case verb == "by": // the signer; "by NAME as NAME" signs with the first one's key
		name, other, pretends := strings.Cut(rest, " as ")
		m.signer = s.named[name]
		if !pretends {
			other = name
		}
		m.SetSigner(s.named[other].Certificate, nil)
	case verb == "implicitly":
		m.Header.AddImplicitConfirm()
	case verb == "onap": // whose implicitConfirm has no value
		m.Header.GeneralInfo = []cmp.InfoTypeAndValue{{Type: oid("1.3.6.1.5.5.7.4.13")}}
		m.Request.CertReq.CertReqID = 1850296324
	case verb == "names": // the certificate to revoke or update
		name, isOther := strings.CutSuffix(rest, " of another issuer")
		serial, issuer := s.named[name].Certificate.SerialNumber, s.ca.Issuing().RawSubject
		if isOther {
			issuer = nil
		}
		if content, ok := m.Body.Content.(cmp.RevReqContent); ok {
			content[0].CertDetails.SerialNumber = serial
		} else {
			id := cmp.CertID{Issuer: cmp.DirectoryName(issuer), SerialNumber: serial}
			require.NoError(s.t, m.Request.CertReq.AddOldCertID(id))
		}
	case verb == "twice":
		s.finish(m)
		list := reflect.ValueOf(m.Body.Content)
		m.Body.Content = reflect.Append(list, list.Index(0)).Interface().(cmp.BodyContent)
	case text == "nothing":
		m.Body.Content = cmp.CertConfirmContent{}
	default:
		s.t.Fatalf("unknown change %q", text)
	}
}

func oid(text string) (id asn1.ObjectIdentifier) {
	for arc := range strings.SplitSeq(text, ".") {
		id = append(id, fixture.Must(strconv.Atoi(arc)))
	}
	return id
}

// set changes a part of a message by words.
func (s *script) set(m *sending, path, text string) {
	part := fixture.Part(m, path)
	require.True(s.t, part.IsValid(), path)
	var value any
	name, isName := strings.CutPrefix(text, "subject of ")
	switch part.Interface().(type) {
	case []byte:
		switch {
		case isName:
			value = s.named[name].Certificate.RawSubject
		case text == "sha512":
			hash := sha512.Sum512(s.named["leaf"].Certificate.Raw)
			value = hash[:]
		case text == "fresh":
			value = cmp.NewNonce()
		case text == "used":
			value = s.first.Header.SenderNonce
		default:
			value = fixture.Octets(part.Bytes(), text)
		}
	case cmp.GeneralName:
		value = cmp.DirectoryName(s.named[name].Certificate.RawSubject)
	case time.Time:
		value = s.now.Add(fixture.Must(time.ParseDuration(text)))
	case *cmp.AlgorithmIdentifier:
		value = &cmp.AlgorithmIdentifier{Algorithm: oid(text)}
	case *cmp.PKIStatusInfo:
		status, bit, _ := strings.Cut(text, " ")
		info := cmp.PKIStatusInfo{Status: fixture.ByName[cmp.PKIStatus](status)}
		if bit != "" {
			info.FailInfo = cmp.NewFailureInfo(fixture.ByName[cmp.FailureBit](bit))
		}
		value = &info
	case *cmp.OptionalValidity:
		value = &cmp.OptionalValidity{}
	case cmp.CertificationRequest:
		value = cmp.CertificationRequest(fixture.Octets(part.Elem().Bytes(), text))
	case [][]byte:
		value = [][]byte{fixture.Octets(nil, text)}
	}
	if value == nil || text == "none" {
		fixture.SetPart(part, text)
		return
	}
	part.Set(reflect.ValueOf(value).Convert(part.Type()))
}

// describe says what an answer is, and what in it is not as it should be.
func (s *script) describe(m *sending, answer *cmp.PKIMessage) string {
	text := outcome(answer)
	if answer.Body.Type == cmp.BodyPollRep {
		text += fmt.Sprint(answer.Body.Content)
	}
	if m.Header.TransactionID != nil {
		assert.Equal(s.t, m.Header.TransactionID, answer.Header.TransactionID)
	}
	if !bytes.Equal(m.Header.SenderNonce, answer.Header.RecipNonce) {
		text += fmt.Sprintf("; another recipNonce, of %d bytes", len(answer.Header.RecipNonce))
	}
	if mac, err := cmp.NewMACKeys([]byte(devca.DefaultSecret)).Verify(answer); err == nil {
		if mac.Protection != cmp.ProtectionPBMSHA256 {
			text += fmt.Sprint("; protected by ", mac.Protection)
		}
	} else if cmp.VerifySignature(answer, s.ca.Issuing().PublicKey) == nil {
		text += "; signed"
		assert.Equal(s.t, [][]byte{s.ca.Issuing().Raw, s.ca.Root().Raw}, answer.ExtraCerts)
	} else {
		assert.Nil(s.t, answer.Protection)
		assert.Nil(s.t, answer.Header.ProtectionAlg)
		text += "; not protected"
	}
	if answer.Header.ImplicitConfirm() {
		text += "; confirmed implicitly"
	}
	if answer.Body.Type != cmp.BodyError && answer.Body.Type != cmp.BodyPKIConf {
		s.answer = answer
	}
	if s.first == nil {
		s.first = m.PKIMessage
	}
	content, ok := answer.Body.Content.(*cmp.CertRepMessage)
	if !ok || content.Response[0].CertifiedKeyPair == nil {
		return text + "\n"
	}
	if s.id = content.Response[0].CertReqID; s.id != 0 {
		text += fmt.Sprint("; certReqId ", s.id)
	}
	der := content.Response[0].CertifiedKeyPair.Certificate
	certificate := fixture.Must(x509.ParseCertificate(der))
	s.named["leaf"] = &cmp.Signer{Certificate: certificate, Key: s.key}
	return text + s.certificate(certificate) + "\n"
}

var usages = strings.Fields("digitalSignature contentCommitment keyEncipherment dataEncipherment keyAgreement " +
	"keyCertSign cRLSign encipherOnly decipherOnly")

func (s *script) certificate(c *x509.Certificate) (text string) {
	var names []string
	for bit, name := range usages {
		if c.KeyUsage&(1<<bit) != 0 {
			names = append(names, name)
		}
	}
	text = "; for " + strings.Join(names, ", ")
	if from, to := c.NotBefore.Sub(s.now), c.NotAfter.Sub(s.now); from != 0 || to != time.Hour {
		text += fmt.Sprintf("; from %s to %s", from, to)
	}
	if subject := c.Subject.String(); subject != "CN=leaf.example.org,O=Example" {
		text += fmt.Sprintf("; subject %q", subject)
	}
	if !pki.SameKey(s.key.Public(), c.PublicKey) {
		text += "; of another key"
	}
	usual := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	if slices.Equal(c.ExtKeyUsage, usual[1:]) {
		text += "; for servers only"
	} else {
		assert.Equal(s.t, usual, c.ExtKeyUsage)
	}
	assert.Equal(s.t, csr(newKey()).DNSNames, c.DNSNames)
	assert.Equal(s.t, s.ca.Issuing().SubjectKeyId, c.AuthorityKeyId)
	assert.Len(s.t, c.SubjectKeyId, 20)
	assert.NoError(s.t, c.CheckSignatureFrom(s.ca.Issuing()))
	assert.NoError(s.t, s.ca.Issuing().CheckSignatureFrom(s.ca.Root()))
	for _, extension := range c.Extensions { // RFC 5280, 4.2.1.6
		isNames := extension.Id.Equal(oid("2.5.29.17"))
		assert.False(s.t, isNames && extension.Critical != (c.Subject.String() == ""))
	}
	return text
}
