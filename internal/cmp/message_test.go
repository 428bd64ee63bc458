package cmp

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// fullHeader has every field set.
func fullHeader(t testing.TB) PKIHeader {
	name, err := ParseDN("CN=sender,O=Example,C=SE")
	require.NoError(t, err)
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

// sampleBodies has at least one body of every kind that is interpreted, with optional fields present.
func sampleBodies(t testing.TB) []PKIBody {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	subject, err := ParseDN("CN=subject")
	require.NoError(t, err)
	request := CertReqMsg{
		CertReq: CertRequest{CertReqID: 0, CertTemplate: CertTemplate{
			Version:      big.NewInt(2),
			SerialNumber: big.NewInt(128),
			SigningAlg:   &AlgorithmIdentifier{Algorithm: signatureAlgorithms[0].oid, Parameters: derNull},
			Issuer:       subject,
			Validity:     &OptionalValidity{NotBefore: []byte("\x17\x0d260102030405Z"), NotAfter: []byte("\x18\x0f20600102030405Z")},
			Subject:      subject,
			IssuerUID:    []byte{0, 1},
			SubjectUID:   []byte{0, 2},
			Extensions:   []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Critical: true, Value: []byte{3, 2, 5, 160}}, {Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Value: []byte{0x30, 0}}},
		}},
		RegInfo: []AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{1, 2, 3}, Value: derNull}},
	}
	require.NoError(t, request.CertReq.CertTemplate.SetKey(key.Public()))
	require.NoError(t, request.CertReq.AddOldCertID(CertID{DirectoryName(subject), big.NewInt(-7)}))
	require.NoError(t, request.SignPOPO(key))
	verified, withInput, encipherment := request, request, request
	verified.POPO = &ProofOfPossession{RAVerified: true}
	withInput.POPO = &ProofOfPossession{Signature: &POPOSigningKey{POPOSKInput: []byte{5, 0}, Algorithm: request.POPO.Signature.Algorithm, Signature: []byte{1}}}
	encipherment.POPO = &ProofOfPossession{Other: []byte{0xa2, 2, 5, 0}}
	rejection := Rejection("no", FailBadPOP, FailDuplicateCertReq)
	certificates := &CertRepMessage{CAPubs: [][]byte{anyCertificate}, Response: []CertResponse{
		{CertReqID: -1, Status: rejection, RspInfo: []byte("info")},
		{Status: PKIStatusInfo{Status: StatusAccepted}, CertifiedKeyPair: &CertifiedKeyPair{Certificate: anyCertificate, PrivateKey: anyCertificate, PublicationInfo: anyCertificate}},
		{Status: PKIStatusInfo{Status: StatusAccepted}, CertifiedKeyPair: &CertifiedKeyPair{EncryptedCert: anyCertificate}},
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
		{BodyRR, RevReqContent{{CertDetails: CertTemplate{SerialNumber: big.NewInt(1)}, CRLEntryDetails: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 21}, Value: []byte{10, 1, 1}}}}}},
		{BodyRP, &RevRepContent{Status: []PKIStatusInfo{rejection}, RevCerts: []CertID{{DirectoryName(subject), big.NewInt(1)}}, CRLs: [][]byte{anyCertificate}}},
		{BodyPKIConf, PKIConfirmContent{}},
		{BodyGenM, GeneralContent{{Type: OIDCACerts}}},
		{BodyGenP, GeneralContent{{Type: OIDCACerts, Value: anyCertificate}}},
		{BodyError, &ErrorMsgContent{StatusInfo: rejection, ErrorCode: big.NewInt(500), ErrorDetails: PKIFreeText{"more"}}},
		{BodyCertConf, CertConfirmContent{{CertHash: []byte{1}}, {CertHash: []byte{2}, CertReqID: 1, StatusInfo: &rejection, HashAlg: &hash}}},
		{BodyPollReq, PollReqContent{0, -1}},
		{BodyPollRep, PollRepContent{{CertReqID: 0, CheckAfter: 60, Reason: PKIFreeText{"operator"}}, {CertReqID: 1}}},
		{BodyType(20), RawContent{0x30, 0}},
	}
}

func TestPKIMessage_everyBody_roundTrips(t *testing.T) {
	for _, body := range sampleBodies(t) {
		t.Run(body.Type.String(), func(t *testing.T) {
			m := &PKIMessage{Header: fullHeader(t), Body: body, ExtraCerts: [][]byte{anyCertificate}}
			mac, err := NewMAC(ProtectionPBMSHA256)
			require.NoError(t, err)
			require.NoError(t, NewMACKeys([]byte("secret")).Protect(m, mac))
			der, err := m.Marshal()
			require.NoError(t, err)

			parsed, err := ParsePKIMessage(der)
			require.NoError(t, err)
			again, err := parsed.Marshal()
			require.NoError(t, err)

			assert.Equal(t, der, again)
			assert.Equal(t, m.Header, parsed.Header)
			parsed.RawHeader, parsed.RawBody = nil, nil
			if _, crmf := body.Content.(CertReqMessages); !crmf { // these keep more raw bytes when parsed
				assert.Equal(t, m, parsed)
			}
			_, err = NewMACKeys([]byte("secret")).Verify(parsed)
			assert.NoError(t, err)
		})
	}
}

func TestPKIMessage_bodyOfWrongType_isNotMarshalled(t *testing.T) {
	m := &PKIMessage{Header: fullHeader(t), Body: PKIBody{BodyIP, PKIConfirmContent{}}}

	_, err := m.Marshal()

	assert.EqualError(t, err, "encoding PKIMessage: ip body cannot hold cmp.PKIConfirmContent")
}

// minimalMessage is a pkiconf with the shortest header there is: it starts 30 len 30 len.
func minimalMessage(t testing.TB) []byte {
	m := &PKIMessage{Header: PKIHeader{PVNO: 2, Sender: DirectoryName(nil), Recipient: DirectoryName(nil)}, Body: PKIBody{BodyPKIConf, PKIConfirmContent{}}}
	der, err := m.Marshal()
	require.NoError(t, err)
	return der
}

func TestParsePKIMessage_malformed_isRefused(t *testing.T) {
	valid := minimalMessage(t)
	header, body := valid[2:15], valid[15:]
	require.Equal(t, []byte{0x30, 0x0b, 2, 1, 2, 0xa4, 2, 0x30, 0, 0xa4, 2, 0x30, 0}, header, "the rows below rely on it")
	_, err := ParsePKIMessage(valid)
	require.NoError(t, err)
	deep := []byte{0x30, 0}
	for range 40 {
		deep = wrap(0x30, deep)
	}
	many := [][]byte{}
	for range 10_000 {
		many = append(many, anyCertificate)
	}
	crowd := &PKIMessage{Header: fullHeader(t), Body: PKIBody{BodyPKIConf, PKIConfirmContent{}}, ExtraCerts: many}
	crowdDER, err := crowd.Marshal()
	require.NoError(t, err)
	message := func(parts ...[]byte) []byte { return wrap(0x30, bytes.Join(parts, nil)) }

	for name, row := range map[string]struct {
		der  []byte
		want string
	}{
		"nothing":                       {nil, "decoding PKIMessage: PKIMessage is missing or malformed"},
		"truncated":                     {valid[:len(valid)-1], "decoding PKIMessage: not DER"},
		"trailing bytes":                {append(bytes.Clone(valid), 5, 0), "decoding PKIMessage: has 2 bytes after its last field"},
		"trailing byte":                 {append(bytes.Clone(valid), 0), "decoding PKIMessage: not DER"},
		"indefinite length":             {append(append([]byte{0x30, 0x80}, valid[2:]...), 0, 0), "decoding PKIMessage: not DER"},
		"length in more bytes than due": {append([]byte{0x30, 0x81}, valid[1:]...), "decoding PKIMessage: not DER"},
		"length of four gigabytes":      {[]byte{0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0}, "decoding PKIMessage: not DER"},
		"length of 126 bytes":           {[]byte{0x30, 0xfe, 1}, "decoding PKIMessage: not DER"},
		"nested 40 deep":                {deep, "decoding PKIMessage: nested deeper than 32 levels"},
		"too large":                     {make([]byte, MaxMessageSize+1), "decoding PKIMessage: has 1048577 bytes, want at most 1048576"},
		"10,000 extraCerts":             {crowdDER, "extraCerts: has more than 128 elements"},
		"segmented OCTET STRING":        {wrap(0x30, []byte{0x24, 0}), "decoding PKIMessage: not DER: tag 0x24"},
		"primitive SEQUENCE":            {[]byte{0x10, 0}, "decoding PKIMessage: not DER: tag 0x10"},
		"no body":                       {message(header), "PKIMessage: body is missing or malformed"},
		"body of unknown kind":          {message(header, []byte{0xbb, 2, 5, 0}), "decoding PKIMessage: body is of no known kind"},
		"body not context-tagged":       {message(header, []byte{5, 0}), "decoding PKIMessage: body is of no known kind"},
		"pkiconf with content":          {message(header, []byte{0xb3, 3, 5, 1, 9}), "decoding PKIMessage: PKIConfirmContent: has 1 bytes after its last field"},
		"empty extraCerts":              {message(header, body, []byte{0xa1, 2, 0x30, 0}), "extraCerts: has no elements"},
		"protection with unused bits":   {message(header, body, []byte{0xa0, 4, 3, 2, 1, 2}), "protection: protection is not a BIT STRING of whole octets"},
		"fields out of order":           {message(header, body, []byte{0xa1, 4, 0x30, 2, 0x30, 0}, []byte{0xa0, 4, 3, 2, 0, 2}), "PKIMessage: has 6 bytes after its last field"},
		"sender not a GeneralName":      {message(wrap(0x30, []byte{2, 1, 2, 5, 0, 0xa4, 2, 0x30, 0}), body), "decoding PKIMessage: header: sender is not a GeneralName"},
		"time without a zone":           {message(wrap(0x30, append(bytes.Clone(header[2:]), append([]byte{0xa0, 16, 0x18, 14}, "20260504030201"...)...)), body), "decoding PKIMessage: messageTime: messageTime is not a GeneralizedTime in UTC or with an offset"},
		"pvno not minimal":              {message(wrap(0x30, append([]byte{2, 2, 0, 2}, header[5:]...)), body), "decoding PKIMessage: header: pvno is not an INTEGER of 64 bits"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParsePKIMessage(row.der)
			assert.EqualError(t, err, row.want)
		})
	}
}

func TestDecoder_limits(t *testing.T) {
	bytesOf := func(n int) []byte { return bytes.Repeat([]byte{1}, n) }
	for name, row := range map[string]struct {
		read func(d *decoder)
		good []byte
		bad  []byte
		want string
	}{
		"INTEGER": {func(d *decoder) { d.bigInt(cbasn1.INTEGER, "n") }, wrap(2, bytesOf(maxIntegerSize)), wrap(2, bytesOf(maxIntegerSize+1)),
			"limits: n is not an INTEGER of at most 64 bytes"},
		"OBJECT IDENTIFIER": {func(d *decoder) { d.oid("id") }, wrap(6, bytesOf(maxOIDSize-2)), wrap(6, bytesOf(maxOIDSize-1)),
			"limits: id is not an OBJECT IDENTIFIER"},
		"failInfo": {func(d *decoder) { (&PKIStatusInfo{}).code(codec{in: d}) },
			wrap(0x30, append([]byte{2, 1, 2}, wrap(3, append([]byte{0}, bytesOf(maxFailureInfoSize)...))...)),
			wrap(0x30, append([]byte{2, 1, 2}, wrap(3, append([]byte{0}, bytesOf(maxFailureInfoSize+1)...))...)),
			"PKIStatusInfo: failInfo is not a BIT STRING of at most 16 bytes"},
		"GeneralizedTime with trailing zeros": {func(d *decoder) { d.generalizedTime("t") }, wrap(0x18, []byte("20260504030201.5Z")), wrap(0x18, []byte("20260504030201.50Z")),
			"limits: t is not a GeneralizedTime in UTC or with an offset"},
		"GeneralizedTime with an empty fraction": {func(d *decoder) { d.generalizedTime("t") }, wrap(0x18, []byte("20260504030201Z")), wrap(0x18, []byte("20260504030201.0Z")),
			"limits: t is not a GeneralizedTime in UTC or with an offset"},
		"GeneralizedTime that is Go's zero time, which stands for absent": {func(d *decoder) { d.generalizedTime("t") }, wrap(0x18, []byte("00010101000001Z")), wrap(0x18, []byte("00010101000000Z")),
			"limits: t is not a GeneralizedTime in UTC or with an offset"},
		"critical": {func(d *decoder) { codeExtensions(codec{in: d}, 0x30, new([]pkix.Extension)) }, wrap(0x30, wrap(0x30, []byte{6, 1, 0x2a, 1, 1, 0xff, 4, 0})), wrap(0x30, wrap(0x30, []byte{6, 1, 0x2a, 1, 1, 0, 4, 0})),
			"Extension: critical is not TRUE, and FALSE is the default that DER leaves out"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDecoder(row.good, "limits")
			row.read(d)
			require.NoError(t, d.end())

			d = newDecoder(row.bad, "limits")
			row.read(d)

			assert.EqualError(t, d.end(), row.want)
		})
	}
}

// The most that can be packed into few bytes: lists of the most elements, each of the fewest bytes.
func TestParsePKIMessage_memory_isASmallMultipleOfTheInput(t *testing.T) {
	repeat := func(element []byte, n int) []byte { return bytes.Repeat(element, n) }
	text := wrap(0x30, repeat([]byte{0x0c, 0}, maxElements))
	extension := []byte{0x30, 5, 6, 1, 0x2a, 4, 0}
	for name, body := range map[string][]byte{
		"texts in pollRep":          wrap(explicit(26), wrap(0x30, repeat(wrap(0x30, append([]byte{2, 1, 0, 2, 1, 0}, text...)), maxElements))),
		"extensions in rr":          wrap(explicit(11), wrap(0x30, repeat(wrap(0x30, append([]byte{0x30, 0}, wrap(0x30, repeat(extension, maxElements))...)), maxElements))),
		"one certificate of 900 kB": wrap(explicit(1), wrap(0x30, append(wrap(explicit(1), wrap(0x30, wrap(0x30, wrap(4, make([]byte, 900_000))))), 0x30, 0))),
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
		m := &PKIMessage{Header: fullHeader(f), Body: body, Protection: []byte{1}, ExtraCerts: [][]byte{anyCertificate}}
		der, err := m.Marshal()
		require.NoError(f, err)
		f.Add(der)
	}
	f.Add(minimalMessage(f))
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
