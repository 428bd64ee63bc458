package cmp

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"math/big"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
)

// fullHeader has every field set.
func fullHeader() PKIHeader {
	name := fixture.Must(ParseDN("CN=sender,O=Example,C=SE"))
	h := PKIHeader{
		PVNO:          PVNO2,
		Sender:        DirectoryName(name),
		Recipient:     DirectoryName(nil),
		MessageTime:   time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC),
		SenderKID:     []byte("reference"),
		RecipKID:      []byte{},
		TransactionID: bytes.Repeat([]byte{1}, NonceSize),
		SenderNonce:   bytes.Repeat([]byte{2}, NonceSize),
		RecipNonce:    bytes.Repeat([]byte{3}, NonceSize),
		FreeText:      PKIFreeText{"one", "two"},
	}
	h.AddImplicitConfirm()
	return h
}

// anyCertificate stands for a certificate where only its outer tag matters.
var anyCertificate = []byte{0x30, 3, 2, 1, 5}

// sampleBodies has at least one body of every kind that is interpreted, with optional fields
// present.
func sampleBodies(t testing.TB) []PKIBody {
	key := fixture.Must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	subject := fixture.Must(ParseDN("CN=subject"))
	request := CertReqMsg{
		CertReq: CertRequest{CertReqID: 0, CertTemplate: CertTemplate{
			Version:      big.NewInt(2),
			SerialNumber: big.NewInt(128),
			SigningAlg:   &AlgorithmIdentifier{Algorithm: signatureAlgorithms[0].oid, Parameters: derNull},
			Issuer:       subject,
			Validity: &OptionalValidity{NotBefore: []byte("\x17\x0d260102030405Z"),
				NotAfter: []byte("\x18\x0f20600102030405Z")},
			Subject:    subject,
			IssuerUID:  []byte{0, 1},
			SubjectUID: []byte{0, 2},
			Extensions: []pkix.Extension{{Id: []int{2, 5, 29, 15}, Critical: true, Value: []byte{3, 2, 5, 160}},
				{Id: []int{2, 5, 29, 37}, Value: []byte{0x30, 0}}},
		}},
		RegInfo: []AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{1, 2, 3}, Value: derNull}},
	}
	request.CertReq.CertTemplate.PublicKey = spki(key)
	require.NoError(t, request.CertReq.AddOldCertID(CertID{DirectoryName(subject), big.NewInt(-7)}))
	require.NoError(t, request.SignPOPO(key))
	verified, withInput, encipherment := request, request, request
	verified.POPO = &ProofOfPossession{RAVerified: true}
	withInput.POPO = &ProofOfPossession{Signature: &POPOSigningKey{POPOSKInput: []byte{5, 0},
		Algorithm: request.POPO.Signature.Algorithm, Signature: []byte{1}}}
	encipherment.POPO = &ProofOfPossession{Other: []byte{0xa2, 2, 5, 0}}
	rejection := Rejection("no", FailBadPOP, FailDuplicateCertReq)
	certificates := &CertRepMessage{CAPubs: [][]byte{anyCertificate}, Response: []CertResponse{
		{CertReqID: -1, Status: rejection, RspInfo: []byte("info")},
		{Status: PKIStatusInfo{Status: StatusAccepted},
			CertifiedKeyPair: &CertifiedKeyPair{Certificate: anyCertificate,
				PrivateKey: anyCertificate, PublicationInfo: anyCertificate}},
		{Status: PKIStatusInfo{Status: StatusAccepted},
			CertifiedKeyPair: &CertifiedKeyPair{EncryptedCert: anyCertificate}},
	}}
	hash := hashIdentifier(5)
	return []PKIBody{
		{BodyIR, CertReqMessages{request}},
		{BodyCR, CertReqMessages{verified, withInput}},
		{BodyKUR, CertReqMessages{encipherment}},
		{BodyIP, certificates},
		{BodyCP, certificates},
		{BodyKUP, &CertRepMessage{}},
		{BodyP10CR, CertificationRequest(anyCertificate)},
		{BodyRR, RevReqContent{{CertDetails: CertTemplate{SerialNumber: big.NewInt(1)},
			CRLEntryDetails: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 21}, Value: []byte{10, 1, 1}}}}}},
		{BodyRP, &RevRepContent{Status: []PKIStatusInfo{rejection},
			RevCerts: []CertID{{DirectoryName(subject), big.NewInt(1)}}, CRLs: [][]byte{anyCertificate}}},
		{BodyPKIConf, PKIConfirmContent{}},
		{BodyGenM, GeneralContent{{Type: OIDCACerts}}},
		{BodyGenP, GeneralContent{{Type: OIDCACerts, Value: anyCertificate}}},
		{BodyError, &ErrorMsgContent{StatusInfo: rejection, ErrorCode: big.NewInt(500),
			ErrorDetails: PKIFreeText{"more"}}},
		{BodyCertConf, CertConfirmContent{{CertHash: []byte{1}},
			{CertHash: []byte{2}, CertReqID: 1, StatusInfo: &rejection, HashAlg: &hash}}},
		{BodyPollReq, PollReqContent{0, -1}},
		{BodyPollRep, PollRepContent{{CertReqID: 0, CheckAfter: 60, Reason: PKIFreeText{"operator"}}, {CertReqID: 1}}},
		{BodyType(20), RawContent{0x30, 0}},
	}
}

func TestPKIMessage_everyBody_roundTrips(t *testing.T) {
	for _, body := range sampleBodies(t) {
		t.Run(body.Type.String(), func(t *testing.T) {
			m := &PKIMessage{Header: fullHeader(), Body: body, ExtraCerts: [][]byte{anyCertificate}}
			mac := fixture.Must(NewMAC(ProtectionPBMSHA256))
			require.NoError(t, NewMACKeys([]byte("secret")).Protect(m, mac))
			der := fixture.Must(m.Marshal())

			parsed, err := ParsePKIMessage(der)
			require.NoError(t, err)
			again, err := parsed.Marshal()
			require.NoError(t, err)

			assert.Equal(t, der, again)
			assert.Equal(t, m.Header, parsed.Header)
			parsed.RawHeader, parsed.RawBody = nil, nil
			if _, crmf := body.Content.(CertReqMessages); !crmf { // which keeps more bytes
				assert.Equal(t, m, parsed)
			}
			_, err = NewMACKeys([]byte("secret")).Verify(parsed)
			assert.NoError(t, err)
		})
	}
}

func TestPKIMessage_bodyOfWrongType_isNotMarshalled(t *testing.T) {
	m := &PKIMessage{Header: fullHeader(), Body: PKIBody{BodyIP, PKIConfirmContent{}}}

	_, err := m.Marshal()

	assert.EqualError(t, err, "encoding PKIMessage: ip body cannot hold cmp.PKIConfirmContent")
}

// minimalMessage is a pkiconf with the shortest header there is: it starts 30 len 30 len.
func minimalMessage() []byte {
	m := &PKIMessage{Header: PKIHeader{PVNO: 2, Sender: DirectoryName(nil), Recipient: DirectoryName(nil)},
		Body: PKIBody{BodyPKIConf, PKIConfirmContent{}}}
	return fixture.Must(m.Marshal())
}

func TestParsePKIMessage_malformed_isRefused(t *testing.T) {
	valid := minimalMessage()
	_, err := ParsePKIMessage(valid)
	require.NoError(t, err)
	header, body := valid[2:15], valid[15:]
	deep := []byte{0x30, 0}
	for range 40 {
		deep = wrap(0x30, deep)
	}
	crowd := wrap(0xa1, wrap(0x30, bytes.Repeat(anyCertificate, 10_000)))
	digits := hex.EncodeToString
	pieces := strings.NewReplacer("{valid}", digits(valid), "{cut off}", digits(valid[1:]), " ", "",
		"{header}", digits(header), "{body}", digits(body), "{crowd}", digits(crowd), "{deep}", digits(deep),
		"{too large}", strings.Repeat("00", MaxMessageSize+1))
	golden.Play(t, "malformed.txt", func(t *testing.T, _, commands string) string {
		content, isMessage := strings.CutPrefix(strings.Trim(commands, "> \n"), "message")
		der := fixture.Must(hex.DecodeString(pieces.Replace(content)))
		if isMessage {
			der = wrap(0x30, der)
		}
		_, err := ParsePKIMessage(der)
		require.Error(t, err)
		return err.Error()
	})
}

// TestDecoder_limits reads testdata/limits.txt: a type and DER, of which "01*64" is a byte 64
// times.
func TestDecoder_limits(t *testing.T) {
	codes := map[string]func(codec){
		"INTEGER":       func(c codec) { c.bigInt(cbasn1.INTEGER, "n", new(*big.Int)) },
		"OID":           func(c codec) { c.oid("id", new(asn1.ObjectIdentifier)) },
		"PKIStatusInfo": func(c codec) { new(PKIStatusInfo).code(c) },
		"Extensions":    func(c codec) { codeExtensions(c, 0x30, new([]pkix.Extension)) },
	}
	golden.Play(t, "limits.txt", func(t *testing.T, _, commands string) string {
		words := strings.Fields(commands[1:])
		var der []byte
		for _, word := range words[1:] {
			digits, times, _ := strings.Cut(word, "*")
			n, _ := strconv.Atoi(times)
			der = append(der, bytes.Repeat(fixture.Must(hex.DecodeString(digits)), max(n, 1))...)
		}
		return fmt.Sprint(decode(der, "limits", codes[words[0]]))
	})
}

// TestParsePKIMessage_messageTime reads times as they may stand in a message; what is read is kept
// as it came.
func TestParsePKIMessage_messageTime(t *testing.T) {
	minimal := fixture.Must(ParsePKIMessage(minimalMessage()))
	golden.Play(t, "times.txt", func(t *testing.T, text, _ string) string {
		field := wrap(explicit(0), wrap(0x18, []byte(text)))
		header := wrap(0x30, append(bytes.Clone(minimal.RawHeader[2:]), field...))
		der := wrap(0x30, append(header, minimal.RawBody...))
		m, err := ParsePKIMessage(der)
		if err != nil {
			return err.Error()
		}
		read := m.Header.MessageTime
		assert.Equal(t, der, fixture.Must(m.Marshal()))
		m.Header.MessageTime = testNow.Add(time.Hour) // another time is written in UTC
		assert.Contains(t, string(fixture.Must(m.Marshal())), "20260504040201Z")
		return read.Format(time.RFC3339Nano)
	})
}

// The most that can be packed into few bytes: lists of the most elements, each of the fewest bytes.
func TestParsePKIMessage_memory_isASmallMultipleOfTheInput(t *testing.T) {
	repeat := func(element []byte, n int) []byte { return bytes.Repeat(element, n) }
	text := wrap(0x30, repeat([]byte{0x0c, 0}, maxElements))
	extension := []byte{0x30, 5, 6, 1, 0x2a, 4, 0}
	for name, body := range map[string][]byte{
		"texts in pollRep": wrap(explicit(26),
			wrap(0x30, repeat(wrap(0x30, append([]byte{2, 1, 0, 2, 1, 0}, text...)), maxElements))),
		"extensions in rr": wrap(explicit(11),
			wrap(0x30, repeat(wrap(0x30, append([]byte{0x30, 0}, wrap(0x30, repeat(extension, maxElements))...)),
				maxElements))),
		"one certificate of 900 kB": wrap(explicit(1),
			wrap(0x30, append(wrap(explicit(1), wrap(0x30, wrap(0x30, wrap(4, make([]byte, 900_000))))), 0x30, 0))),
	} {
		der := wrap(0x30, append([]byte{0x30, 0x0b, 2, 1, 2, 0xa4, 2, 0x30, 0, 0xa4, 2, 0x30, 0}, body...))
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		m, err := ParsePKIMessage(der)
		runtime.GC()
		runtime.ReadMemStats(&after)
		require.NoError(t, err, name)
		kept := int64(after.HeapAlloc) - int64(before.HeapAlloc)
		assert.Less(t, kept, int64(16*len(der)), name)
		runtime.KeepAlive(m)
		runtime.KeepAlive(der)
	}
}

func FuzzParsePKIMessage(f *testing.F) {
	for _, body := range sampleBodies(f) {
		m := &PKIMessage{Header: fullHeader(), Body: body, Protection: []byte{1}, ExtraCerts: [][]byte{anyCertificate}}
		f.Add(fixture.Must(m.Marshal()))
	}
	f.Add(minimalMessage())
	for _, message := range recordedMessages(f) {
		f.Add(message)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		m, err := ParsePKIMessage(der)
		if err != nil {
			return
		}
		again, err := m.Marshal()
		require.NoError(t, err)
		require.Equal(t, der, again)
		_ = m.Header.Sender.String()
		if messages, ok := m.Body.Content.(CertReqMessages); ok {
			for i := range messages {
				_ = messages[i].VerifyPOPO()
				_, _ = messages[i].CertReq.OldCertID()
			}
		}
		budget := 10_000 // the bounds on iterations have tests of their own, which take their time
		_, _ = NewMACKeys([]byte("secret")).verify(m, &budget)
	})
}

func withSAN(value []byte) []pkix.Extension { return []pkix.Extension{{Id: oidSAN, Value: value}} }

func TestPKIFailureInfo_bits(t *testing.T) {
	info := NewFailureInfo(FailDuplicateCertReq, FailBadAlg, FailBadPOP)
	assert.True(t, info.Has(FailBadPOP))
	assert.False(t, info.Has(FailBadTime))
	assert.Equal(t, []string{"badAlg", "badPOP", "duplicateCertReq"}, info.Names())
	assert.Empty(t, NewFailureInfo().Names())
	assert.Equal(t, "failure bit 27", FailureBit(27).String())
	for bit := FailBadAlg; bit <= FailDuplicateCertReq; bit++ {
		assert.Equal(t, []string{bit.String()}, NewFailureInfo(bit).Names())
	}
}

func TestPKIFreeText_String_isFitForALog(t *testing.T) {
	assert.Equal(t, "one; two", PKIFreeText{"one", "two"}.String())
	assert.Equal(t, "a b", PKIFreeText{"a\nb\x00\xff"}.String())
	assert.Len(t, PKIFreeText{strings.Repeat("x", 5000)}.String(), maxShownText+len("…"))
	assert.Empty(t, PKIFreeText(nil).String())
}

func TestAlternativeNames_everyKind(t *testing.T) {
	names, err := alternativeNames(withSAN([]byte{0x30, 24, 0x82, 1, 'X', 0x81, 3, 'A', '@', 'B',
		0x86, 1, 'u', 0x87, 4, 10, 0, 0, 1, 0x88, 1, 5, 0xa4, 2, 0x30, 0}))
	assert.NoError(t, err)
	assert.Equal(t, []string{`DNS "x"`, "IP 10.0.0.1", `URI "u"`, `email "A@b"`,
		"name of kind 4 3000", "name of kind 8 05"}, names)

	for _, malformed := range [][]byte{nil, {0x30, 1, 0x82}, {0x30, 0, 0}, {5, 0}} {
		_, err := alternativeNames(withSAN(malformed))
		assert.EqualError(t, err, "names that do not parse")
	}
}
