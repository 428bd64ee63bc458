package policy

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/test/golden"
)

// Each command of decisions*.txt is a client or a request, whose parts " | " separates; "\…" in a
// part is an escape of Go.
func TestDecide(t *testing.T) {
	golden.Play(t, "decisions*.txt", func(t *testing.T, _, commands string) string {
		d := &desk{t: t, at: time.Unix(1_800_000_000, 0), limits: NewLimits()}
		d.load("payments")
		var text strings.Builder
		for line := range strings.Lines(commands) {
			text.WriteString(line)
			if answer := d.do(strings.TrimSpace(line[1:])); answer != "" {
				fmt.Fprintln(&text, answer)
			}
		}
		return text.String()
	})
}

// desk answers the questions of a script.
type desk struct {
	t      *testing.T
	policy *Policy
	limits *Limits
	client Client
	at     time.Time
}

func (d *desk) load(name string) {
	data, err := os.ReadFile(filepath.Join("testdata", "policies", name+".yaml"))
	require.NoError(d.t, err)
	d.policy, err = Parse(data)
	require.NoError(d.t, err)
}

func (d *desk) do(line string) string {
	command, rest, _ := strings.Cut(line, " ")
	switch command {
	case "policy":
		d.load(rest)
	case "token":
		namespace, name, _ := strings.Cut(rest, "/")
		d.client = Client{Account: &ServiceAccount{namespace, name}}
	case "certificate":
		r := d.read(rest)
		d.client = Client{Certificate: &x509.Certificate{RawSubject: r.subject(), Extensions: r.extensions()}}
	case "wait":
		pause, err := time.ParseDuration(rest)
		require.NoError(d.t, err)
		d.at = d.at.Add(pause)
	default:
		return d.ask(Operation(command), rest)
	}
	return ""
}

func (d *desk) ask(operation Operation, rest string) string {
	ca, parts, asks := strings.Cut(rest, ": ")
	q := Question{Client: d.client, CA: ca, Operation: operation, At: d.at}
	if asks {
		var err error
		if q.Asked, err = ReadCSR(d.read(parts).csr()); err != nil {
			return "always refused: the CSR " + err.Error()
		}
		if operation == CMP { // as in a p10cr
			q.Asked = q.Asked.Whole()
		}
	}
	decision := d.policy.Decide(q, d.limits)
	text := "refused"
	switch {
	case decision.Warned:
		text = "warned"
	case decision.Allowed:
		text = "allowed"
	case decision.Wait > 0:
		text = "limited for " + decision.Wait.String()
	}
	if decision.Rule != "" {
		text += " by " + decision.Rule
	}
	if decision.Reason != "" {
		text += ": " + decision.Reason
	}
	return text
}

// request is what a script describes.
type request struct {
	t          testing.TB
	attributes [][]byte // DER of each AttributeTypeAndValue
	together   bool     // all of them in one RDN
	names      []byte   // DER of the GeneralNames
	usages     []string
	more       []pkix.Extension
	attribute  [][]byte // DER of each further attribute of the CSR
	after      string   // the attributes, where nothing should be
	key        crypto.PublicKey
}

var attributeOIDs = map[string]asn1.ObjectIdentifier{
	"CN": {2, 5, 4, 3}, "O": {2, 5, 4, 10}, "OU": {2, 5, 4, 11}, "C": {2, 5, 4, 6}, "ST": {2, 5, 4, 8},
	"L":      {2, 5, 4, 7},
	"SERIAL": {2, 5, 4, 5}, "EMAIL": {1, 2, 840, 113549, 1, 9, 1}, "DC": {0, 9, 2342, 19200300, 100, 1, 25},
	"UNSTRUCTURED": {1, 2, 840, 113549, 1, 9, 2},
}

var textTags = map[string]cbasn1.Tag{"BMP": 30, "UNIVERSAL": 28, "PRINTABLE": 19, "T61": 20, "IA5": 22, "OCTETS": 4}

func (d *desk) read(parts string) *request {
	r := &request{t: d.t, key: &ecdsa.PublicKey{Curve: elliptic.P256()}}
	if parts == "nothing" {
		return r
	}
	for part := range strings.SplitSeq(parts, " | ") {
		if strings.Contains(part, `\`) {
			unquoted, err := strconv.Unquote(`"` + part + `"`)
			require.NoError(d.t, err, part)
			part = unquoted
		}
		r.add(part)
	}
	return r
}

func (r *request) add(part string) {
	kind, value, _ := strings.Cut(part, ":")
	tags := map[string]byte{"email": 0x81, "DNS": 0x82, "URI": 0x86, "IP": 0x87, "registeredID": 0x88,
		"otherName": 0xa0, "directoryName": 0xa4, "x400Address": 0xa3, "kind9": 0x89, "universalDNS": 0x16,
		"universal2": 0x02, "constructedDNS": 0xa2}
	if kind == "IP" {
		if address, err := netip.ParseAddr(value); err == nil {
			value = string(address.AsSlice())
		}
	}
	if tag, ok := tags[kind]; ok {
		r.names = append(r.names, tlv(cbasn1.Tag(tag), []byte(value))...)
		return
	}
	if name, value, ok := strings.Cut(part, "="); ok {
		name, tag, _ := strings.Cut(name, " ")
		r.addAttribute(attributeOIDs[name], tag, value)
		return
	}
	r.addFurther(part)
}

func (r *request) addAttribute(oid asn1.ObjectIdentifier, tag, value string) {
	encoded := []byte(value)
	number, ok := textTags[tag]
	switch {
	case !ok:
		number = cbasn1.UTF8String
	case tag == "BMP" || tag == "UNIVERSAL":
		encoded = nil
		for _, c := range value {
			if tag == "UNIVERSAL" {
				encoded = append(encoded, byte(c>>24), byte(c>>16))
			}
			encoded = append(encoded, byte(c>>8), byte(c))
		}
	}
	id, err := asn1.Marshal(oid)
	require.NoError(r.t, err)
	r.attributes = append(r.attributes, tlv(cbasn1.SEQUENCE, append(id, tlv(number, encoded)...)))
}

func (r *request) addFurther(part string) {
	word, value, _ := strings.Cut(part, " ")
	switch word {
	case "together":
		r.together = true
	case "usage":
		r.usages = append(r.usages, value)
	case "extension": // OID and the DER of its value
		oid, der, _ := strings.Cut(value, " ")
		r.more = append(r.more, pkix.Extension{Id: parseOID(r.t, oid), Value: []byte(der)})
	case "attribute": // OID and the DER of its values
		oid, values, _ := strings.Cut(value, " ")
		id, err := asn1.Marshal(parseOID(r.t, oid))
		require.NoError(r.t, err)
		r.attribute = append(r.attribute, tlv(cbasn1.SEQUENCE, append(id, tlv(cbasn1.SET, []byte(values))...)))
	case "after":
		r.after = value
	case "key":
		r.key = publicKey(r.t, value)
	default:
		r.t.Fatalf("the part %q is not known", part)
	}
}

func publicKey(t testing.TB, name string) crypto.PublicKey {
	curves := map[string]elliptic.Curve{"ECDSA-P224": elliptic.P224(), "ECDSA-P256": elliptic.P256(),
		"ECDSA-P384": elliptic.P384(), "ECDSA-P521": elliptic.P521()}
	if curve, ok := curves[name]; ok {
		return &ecdsa.PublicKey{Curve: curve}
	}
	if name == "X25519" {
		return ecdhKey()
	}
	if name == "Ed25519" {
		return ed25519.PublicKey(make([]byte, ed25519.PublicKeySize))
	}
	bits, err := strconv.ParseUint(strings.TrimPrefix(name, "RSA-"), 10, 16)
	require.NoError(t, err)
	return &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), uint(bits)-1), E: 65537}
}

func ecdhKey() crypto.PublicKey {
	key, _ := ecdh.X25519().NewPublicKey(make([]byte, 32))
	return key
}

func parseOID(t testing.TB, text string) (oid asn1.ObjectIdentifier) {
	for number := range strings.SplitSeq(text, ".") {
		n, err := strconv.Atoi(number)
		require.NoError(t, err)
		oid = append(oid, n)
	}
	return oid
}

func tlv(tag cbasn1.Tag, content []byte) []byte {
	var b cryptobyte.Builder
	b.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes(content) })
	return b.BytesOrPanic()
}

func (r *request) subject() []byte {
	var rdns []byte
	for _, attribute := range r.attributes {
		if !r.together {
			attribute = tlv(cbasn1.SET, attribute)
		}
		rdns = append(rdns, attribute...)
	}
	if r.together {
		rdns = tlv(cbasn1.SET, rdns)
	}
	return tlv(cbasn1.SEQUENCE, rdns)
}

func (r *request) extensions() (all []pkix.Extension) {
	if r.names != nil {
		all = append(all, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: tlv(cbasn1.SEQUENCE, r.names)})
	}
	var bits asn1.BitString
	var extended []asn1.ObjectIdentifier
	for _, usage := range r.usages {
		if bit := slices.Index(pki.KeyUsages[:], usage); bit >= 0 {
			bits.BitLength = len(pki.KeyUsages)
			bits.Bytes = append(bits.Bytes, make([]byte, 2-len(bits.Bytes))...)
			bits.Bytes[bit/8] |= 0x80 >> (bit % 8)
			continue
		}
		for oid, name := range extKeyUsages {
			if name == usage {
				usage = oid
			}
		}
		extended = append(extended, parseOID(r.t, usage))
	}
	for oid, value := range map[string]any{"2.5.29.15": bits, "2.5.29.37": extended} {
		if der, err := asn1.Marshal(value); err == nil && (bits.Bytes != nil && oid == "2.5.29.15" ||
			extended != nil && oid == "2.5.29.37") {
			all = append(all, pkix.Extension{Id: parseOID(r.t, oid), Value: der})
		}
	}
	return append(all, r.more...)
}

// csr is as crypto/x509 gives it, as far as it matters here, with the bytes that came.
func (r *request) csr() *x509.CertificateRequest {
	var values []byte
	extensions, err := asn1.Marshal(r.extensions())
	require.NoError(r.t, err)
	id, err := asn1.Marshal(oidExtensionRequest)
	require.NoError(r.t, err)
	values = append(values, tlv(cbasn1.SEQUENCE, append(id, tlv(cbasn1.SET, extensions)...))...)
	for _, attribute := range r.attribute {
		values = append(values, attribute...)
	}
	body := slices.Concat(tlv(cbasn1.INTEGER, []byte{0}), r.subject(), tlv(cbasn1.SEQUENCE, nil),
		tlv(cbasn1.Tag(0).ContextSpecific().Constructed(), values), []byte(r.after))
	return &x509.CertificateRequest{RawTBSCertificateRequest: tlv(cbasn1.SEQUENCE, body), RawSubject: r.subject(),
		Extensions: r.extensions(), PublicKey: r.key}
}
