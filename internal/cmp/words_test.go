package cmp

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"math/big"
	"net"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// What the words of a play mean.

// identity makes a certificate and its key: "SUBJECT; by NAME; key of NAME; as CA; permits NAME;
// algorithm OID; version 1; FIELD = VALUE", the subject first, all else as it is needed.
func (p *play) identity(words string) *identity {
	parts := strings.Split(words, "; ")
	made := &identity{key: newKey()}
	signer := made
	var changes []change
	finish := func() {}
	for _, part := range parts[1:] {
		verb, rest, _ := strings.Cut(part, " ")
		switch verb {
		case "by":
			if signer = p.named[rest]; rest == "itself" {
				signer = made
			}
		case "key":
			made.key = p.named[strings.TrimPrefix(rest, "of ")].key
		case "as":
			changes = append(changes, asCA)
		case "permits":
			changes = append(changes, func(c *x509.Certificate) {
				value := wrap(0x30, wrap(0xa0, wrap(0x30, generalName(rest))))
				id := oid("2.5.29.30")
				c.ExtraExtensions = []pkix.Extension{{Id: id, Critical: true, Value: value}}
			})
		case "algorithm":
			finish = func() { made.cert = &x509.Certificate{Raw: resigned(made.cert, oid(rest))} }
		case "version":
			finish = func() { made.cert = fixture.Must(fixture.Version1(made.cert, signer.key)) }
		default:
			path, value, _ := strings.Cut(part, " = ")
			changes = append(changes, func(c *x509.Certificate) { p.set(c, path, value) })
		}
	}
	if signer == made {
		made.cert = issue(parts[0], made.key.Public(), nil, made.key, changes...)
	} else {
		made.cert = issue(parts[0], made.key.Public(), signer, nil, changes...)
	}
	finish()
	return made
}

// leaf makes the certificate that the client asks for, but for what words say.
func (p *play) leaf(words string) *identity {
	subject, rest, _ := strings.Cut(words, ";")
	if subject == "" {
		subject = "CN=leaf,O=Example"
	}
	const usual = "; DNSNames = leaf.example; IPAddresses = 10.0.0.1; by ca; key of client;"
	return p.identity(strings.TrimSuffix(subject+usual+rest, ";"))
}

// set changes a part of an answer or of something else. Answers without that part stay as they are.
func (p *play) set(of any, path, text string) {
	part := fixture.Part(of, path)
	if !part.IsValid() {
		_, isAnswer := of.(*answer)
		require.True(p.t, isAnswer, path)
		return
	}
	if text != "none" {
		if value := p.value(of, part, text); value != nil {
			part.Set(reflect.ValueOf(value))
			return
		}
	}
	fixture.SetPart(part, text)
}

var words = map[string]any{
	"digitalSignature": x509.KeyUsageDigitalSignature, "keyEncipherment": x509.KeyUsageKeyEncipherment,
	"keyCertSign": x509.KeyUsageCertSign, "cRLSign": x509.KeyUsageCRLSign,
	"server": x509.ExtKeyUsageServerAuth, "client": x509.ExtKeyUsageClientAuth,
	"email": x509.ExtKeyUsageEmailProtection, "any": x509.ExtKeyUsageAny,
	"cmcRA": oidCMCRA, "cmcCA": oidCMCCA,
}

func word[T any](text string) T { return words[text].(T) }

// value makes a value for a part from a text; nil: as fixture.SetPart does.
func (p *play) value(of any, part reflect.Value, text string) any {
	fields := strings.Fields(text)
	switch part.Interface().(type) {
	case []byte:
		if text == "huge" {
			return hugeName(200_000)
		}
		return p.octets(of, part.Bytes(), text)
	case [][]byte:
		return fixture.Each(p.certificates(text), func(c *x509.Certificate) []byte { return c.Raw })
	case []*x509.Certificate:
		return p.certificates(text)
	case Protection:
		if text == "left to TLS" {
			return ProtectionNone
		}
	case *Signer:
		signer := p.named[text].signer()
		return &signer
	case []InfoTypeAndValue:
		return []InfoTypeAndValue{{Type: oidImplicitConfirm, Value: derNull}}
	case BodyType:
		return fixture.ByName[BodyType](text)
	case PKIStatus:
		return fixture.ByName[PKIStatus](text)
	case GeneralName:
		return generalName(text)
	case *AlgorithmIdentifier:
		return algorithm(fields)
	case time.Time:
		if at, err := time.Parse(offsetTimeLayout, text); err == nil {
			of.(*answer).Header.messageTimeText = text
			return at
		}
		return testNow.Add(fixture.Must(time.ParseDuration(text)))
	case x509.KeyUsage:
		var usage x509.KeyUsage
		for _, name := range fields {
			usage |= word[x509.KeyUsage](name)
		}
		return usage
	case []x509.ExtKeyUsage:
		return fixture.Each(fields, word[x509.ExtKeyUsage])
	case []asn1.ObjectIdentifier:
		return fixture.Each(fields, word[asn1.ObjectIdentifier])
	case []net.IP:
		return fixture.Each(fields, func(ip string) net.IP { return net.ParseIP(ip).To4() })
	case []*url.URL:
		return []*url.URL{fixture.Must(url.Parse(text))}
	case []pkix.Extension:
		return []pkix.Extension{{Id: oid(text), Critical: true, Value: derNull}}
	}
	return nil
}

// octets are those of the request ("request [NUMBER] PATH") or of another part, or as
// fixture.Octets has it.
func (p *play) octets(of any, now []byte, text string) []byte {
	a, isAnswer := of.(*answer)
	if isAnswer && now == nil { // the whole message is not there yet
		now = fixture.Must(a.Marshal())
	}
	if rest, found := strings.CutPrefix(text, "request"); found {
		request, path := a.request, strings.TrimSpace(rest)
		if nth, rest, found := strings.Cut(path, " "); found {
			request, path = p.requests[fixture.Must(strconv.Atoi(nth))-1], rest
		} else if path == "" {
			return fixture.Must(request.Marshal())
		}
		return fixture.Part(request, path).Bytes()
	}
	if other := fixture.Part(of, text); other.IsValid() {
		return other.Bytes()
	}
	return fixture.Octets(now, text)
}

func oid(text string) asn1.ObjectIdentifier { return fixture.Must(attributeType(text)) }

// generalName is a directory name, also a huge one, or what hexadecimal digits say.
func generalName(text string) GeneralName {
	if text == "huge" {
		return DirectoryName(hugeName(200_000))
	}
	if der, err := hex.DecodeString(text); err == nil {
		return der
	}
	return DirectoryName(dn(text))
}

// certificates are those that were made under names, or that files have; "NAME*N" is one N times.
func (p *play) certificates(names string) (certs []*x509.Certificate) {
	for name := range strings.FieldsSeq(names) {
		name, times, _ := strings.Cut(name, "*")
		var cert *x509.Certificate
		if file, found := strings.CutPrefix(name, "file:"); found {
			cert = &x509.Certificate{Raw: readCertificateFile(file)}
		} else {
			cert = p.named[name].cert
		}
		n, _ := strconv.Atoi(times)
		for range max(n, 1) {
			certs = append(certs, cert)
		}
	}
	return certs
}

// algorithm is "OID", "OID null", or "pbm" with a parameter that may make no sense.
func algorithm(words []string) *AlgorithmIdentifier {
	if words[0] != "pbm" {
		made := &AlgorithmIdentifier{Algorithm: oid(words[0])}
		if len(words) > 1 {
			made.Parameters = derNull
		}
		return made
	}
	pbm := &pbmParameters{make([]byte, saltSize), hashIdentifier(crypto.SHA256),
		hmacIdentifier(crypto.SHA256), big.NewInt(1000)}
	switch words[1] {
	case "owf":
		pbm.owf.Algorithm = oid(words[2])
	case "mac":
		pbm.mac.Algorithm = oid(words[2])
	case "iterations":
		pbm.iterations.SetString(words[2], 10)
	}
	parameters := fixture.Must(encode(pbm.code))
	return &AlgorithmIdentifier{Algorithm: oidPasswordBasedMAC, Parameters: parameters}
}

// pbmac1 reads "HASH ITERATIONS BYTES", the last of the key.
func pbmac1(words []string) MAC {
	hashes := map[string]crypto.Hash{"SHA-1": crypto.SHA1, "SHA-256": crypto.SHA256, "SHA-512": crypto.SHA512}
	number := func(text string) int { return fixture.Must(strconv.Atoi(text)) }
	return pbmac1With(hashes[words[0]], number(words[1]), number(words[2]))
}

// statusOf reads "STATUS FAILINFO...: TEXT".
func statusOf(words string) PKIStatusInfo {
	words, text, _ := strings.Cut(words, ": ")
	names := strings.Fields(words)
	info := PKIStatusInfo{Status: fixture.ByName[PKIStatus](names[0])}
	info.FailInfo = NewFailureInfo(fixture.Each(names[1:], fixture.ByName[FailureBit])...)
	if text != "" {
		info.StatusString = PKIFreeText{fixture.Must(strconv.Unquote(`"` + text + `"`))}
	}
	return info
}

// pollRep reads "CERTREQID SECONDS: REASON".
func pollRep(words string) (reply PollRep) {
	words, reason, _ := strings.Cut(words, ": ")
	for i, number := range []*int64{&reply.CertReqID, &reply.CheckAfter} {
		*number = fixture.Must(strconv.ParseInt(strings.Fields(words)[i], 10, 64))
	}
	if reason != "" {
		reply.Reason = PKIFreeText{reason}
	}
	return reply
}

// resigned names another signature algorithm in a certificate, of which nothing can verify the
// signature.
func resigned(cert *x509.Certificate, algorithm asn1.ObjectIdentifier) []byte {
	var parts struct {
		TBS, Algorithm asn1.RawValue
		Signature      asn1.BitString
	}
	fixture.Must(asn1.Unmarshal(cert.Raw, &parts))
	identifier := wrap(0x30, fixture.Must(asn1.Marshal(algorithm)))
	tbs := bytes.Replace(parts.TBS.Bytes, parts.Algorithm.FullBytes, identifier, 1)
	parts.TBS = asn1.RawValue{FullBytes: wrap(0x30, tbs)}
	parts.Algorithm = asn1.RawValue{FullBytes: identifier}
	return fixture.Must(asn1.Marshal(parts))
}
