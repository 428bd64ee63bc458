package pki

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certfetcher/certfetcher/internal/files"
)

// MaxPEMBlocks is how many blocks are read from one file:
// the largest bundles of public roots have some 150.
const MaxPEMBlocks = 10_000

// PEMBlock is one PEM block.
type PEMBlock struct {
	Label   string // such as "CERTIFICATE"
	Headers string // of RFC 1421, such as "Proc-Type: 4,ENCRYPTED"; empty for all that RFC 7468 knows
	Bytes   []byte // decoded; nil where Err is set
	Line    int    // where the block begins, from 1
	// Err says why the block cannot be read and what to try; it never quotes the block.
	Err error
}

// String names the block in messages.
func (b PEMBlock) String() string { return fmt.Sprintf("the PEM block %q at line %d", b.Label, b.Line) }

var (
	begin = []byte("-----BEGIN ")
	end   = []byte("-----END ")
	dash  = []byte("-----")
)

// errMany says that a file has more blocks than are read.
var errMany = fmt.Errorf("has more than %d PEM blocks, want fewer: is it one file?", MaxPEMBlocks)

// HasPEM says whether data has a PEM block, readable or not.
func HasPEM(data []byte) bool { return bytes.Contains(PEMText(data), begin) }

// PEMBlocks finds the PEM blocks (RFC 7468) of a file as people and tools really leave them: with
// a byte order mark, in UTF-16, indented as in YAML, with line ends that were lost, turned into
// spaces or into the characters \n, and with one block on the line where another ends. Only what
// is beyond doubt is read: what stands between a BEGIN and its END must be Base64 once white space
// and written-out line ends are gone. A block that cannot be read does not hide the others.
//
// PEMBlocks returns the blocks in their order. It is an error when there are more than MaxBlocks.
func PEMBlocks(data []byte) ([]PEMBlock, error) {
	rest := PEMText(data)
	line := 1
	var blocks []PEMBlock
	for {
		i := bytes.Index(rest, begin)
		if i < 0 {
			return blocks, nil
		}
		if len(blocks) == MaxPEMBlocks {
			return nil, errMany
		}
		line += pemLines(rest[:i])
		block, length := readBlock(rest[i:])
		block.Line = line
		blocks = append(blocks, block)
		line += pemLines(rest[i : i+length])
		rest = rest[i+length:]
	}
}

// readBlock reads the block that data begins with, and says how long it is. A block that is not
// finished ends where the next one begins.
func readBlock(data []byte) (PEMBlock, int) {
	after := data[len(begin):]
	n := bytes.Index(after[:min(len(after), maxLabel+len(dash))], dash) // no further: a file may have many such lines
	if n < 0 || bytes.ContainsAny(after[:n], "\r\n") {
		return PEMBlock{Err: errors.New(
			"its BEGIN line is damaged: want -----BEGIN, a label and five dashes on one line")}, len(begin)
	}
	b := PEMBlock{Label: string(after[:n])}
	body := after[n+len(dash):]
	head := len(begin) + n + len(dash)

	limit := len(body)
	if next := bytes.Index(body, begin); next >= 0 {
		limit = next
	}
	closing := bytes.Index(body[:limit], end)
	if closing < 0 {
		b.Err = errors.New("it has no END line: the file was cut short, or lines are missing")
		return b, head + limit
	}
	length := head + closing + len(end)
	label := body[closing+len(end):]
	if !bytes.HasPrefix(label, []byte(b.Label+"-----")) {
		b.Err = errors.New(
			"its END line has another label than its BEGIN line: lines are missing, or the file was edited")
		return b, length
	}
	length += len(b.Label) + len(dash)
	b.Headers, b.Bytes, b.Err = decodePEM(body[:closing])
	return b, length
}

// maxLabel bounds a label; the longest in use has 30 characters.
const maxLabel = 64

// decodePEM reads what stands between the two lines.
func decodePEM(body []byte) (headers string, decoded []byte, err error) {
	if bytes.IndexByte(body, '\\') >= 0 { // else two copies, and a CRL may have many megabytes
		body = bytes.ReplaceAll(bytes.ReplaceAll(body, []byte(`\r`), nil), []byte(`\n`), []byte("\n"))
	}
	if bytes.IndexByte(body, ':') >= 0 {
		if headers, body, err = splitHeaders(body); err != nil {
			return "", nil, err
		}
	}
	compact := bytes.Join(bytes.Fields(body), nil)
	if len(compact) == 0 {
		return headers, nil, errors.New("it is empty, want Base64 between its BEGIN and END lines")
	}
	decoded = make([]byte, base64.StdEncoding.DecodedLen(len(compact)))
	n, err := base64.StdEncoding.Strict().Decode(decoded, compact)
	if err != nil {
		return headers, nil, pemDamage(compact)
	}
	return headers, decoded[:n], nil
}

// splitHeaders takes RFC 1421's headers off, which end at an empty line.
func splitHeaders(body []byte) (string, []byte, error) {
	unix := bytes.ReplaceAll(bytes.ReplaceAll(body, []byte("\r\n"), []byte("\n")), []byte("\r"), []byte("\n"))
	head, rest, found := bytes.Cut(unix, []byte("\n\n"))
	if !found {
		return "", nil, errors.New("it has header lines and no empty line after them: the line ends were lost, " +
			"write the file again as it was made")
	}
	return strings.TrimSpace(string(head)), rest, nil
}

// pemDamage says what is wrong with text that is not Base64, without quoting it.
func pemDamage(compact []byte) error {
	const fix = "copy the file again as it was made; in YAML use a block scalar (key: |) and indent each line alike"
	for i, c := range compact {
		switch {
		case c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '+', c == '/', c == '=':
			continue
		case c == '\\':
			return errors.New(`it has backslashes: an escaped text was not unescaped; ` + fix)
		case c == '-' || c == '_':
			return errors.New("it is in Base64 for URLs, want standard Base64; " + fix)
		}
		return fmt.Errorf("it has a character that is not Base64 (number %d, %U); %s", i+1, rune(c), fix)
	}
	return errors.New("its Base64 is incomplete: characters are missing; " + fix)
}

func pemLines(data []byte) int {
	n := bytes.Count(data, []byte("\n"))
	if n == 0 {
		n = bytes.Count(data, []byte("\r")) // the line ends of old Macs
	}
	return n
}

// PEMText is the file in UTF-8, without a byte order mark. PowerShell and some editors write
// UTF-16, not always with a mark.
func PEMText(data []byte) []byte {
	switch {
	case bytes.HasPrefix(data, []byte{'-', 0, '-', 0}):
		return files.FromUTF16(data, binary.LittleEndian)
	case bytes.HasPrefix(data, []byte{0, '-', 0, '-'}):
		return files.FromUTF16(data, binary.BigEndian)
	}
	text, _ := files.Text(data)
	return text
}

// IsCleanPEM says whether programs that read PEM line by
// line, as openssl does, read all the blocks of a file.
func IsCleanPEM(data []byte) bool {
	blocks, err := PEMBlocks(data)
	if err != nil {
		return true // it is not read here either
	}
	text := data
	for _, b := range blocks {
		if b.Err != nil {
			continue
		}
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil || !bytes.Equal(block.Bytes, b.Bytes) {
			return false
		}
	}
	return true
}

// RewritePEM writes the blocks that can be read as RFC 7468
// has them, with the labels that they have.
func RewritePEM(data []byte) []byte {
	blocks, err := PEMBlocks(data)
	if err != nil {
		return data
	}
	var out []byte
	for _, b := range blocks {
		if b.Err == nil {
			out = append(out, b.encode()...)
		}
	}
	return out
}

func (b PEMBlock) encode() []byte {
	text := pem.EncodeToMemory(&pem.Block{Type: b.Label, Bytes: b.Bytes})
	if b.Headers == "" {
		return text
	}
	line, rest, _ := bytes.Cut(text, []byte("\n"))
	return slices.Concat(line, []byte("\n"+b.Headers+"\n\n"), rest)
}

// The labels of certificates: today's, the one of old programs (RFC 7468, 5.1), and OpenSSL's for
// a certificate that trust settings follow.
const (
	labelCertificate     = "CERTIFICATE"
	labelX509Certificate = "X509 CERTIFICATE"
	labelTrusted         = "TRUSTED CERTIFICATE"
)

// IsCertificate says whether the block's label is that of a certificate.
func (b PEMBlock) IsCertificate() bool {
	return slices.Contains([]string{labelCertificate, labelX509Certificate, labelTrusted}, b.Label)
}

// Certificate reads the certificate of a block for which IsCertificate is true, as Parse does.
func (b PEMBlock) Certificate() (*x509.Certificate, error) {
	if b.Err != nil {
		return nil, b.Err
	}
	if b.Label != labelTrusted {
		return Parse(b.Bytes)
	}
	rest := cryptobyte.String(b.Bytes)
	var der cryptobyte.String
	if !rest.ReadASN1Element(&der, cbasn1.SEQUENCE) {
		return nil, errors.New("it does not begin with a certificate")
	}
	if err := checkTrust(rest); err != nil {
		return nil, err
	}
	return Parse(der)
}

// PEMCertificates reads all the certificates of a file, in their order. Other blocks are passed
// over. What is wrong with a certificate that cannot be read is among the faults, each of which
// names the block and its line. The error is for a file that is not read at all.
func PEMCertificates(data []byte) (certs []*x509.Certificate, faults []error, err error) {
	blocks, err := PEMBlocks(data)
	if err != nil {
		return nil, nil, err
	}
	for _, b := range blocks {
		if !b.IsCertificate() && b.Label != "" {
			continue
		}
		cert, err := b.Certificate()
		if err != nil {
			faults = append(faults, fmt.Errorf("%v: %w", b, err))
			continue
		}
		certs = append(certs, cert)
	}
	return certs, faults, nil
}

var (
	oidServerAuth = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 1}
	oidClientAuth = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 2}
	oidAnyUsage   = asn1.ObjectIdentifier{2, 5, 29, 37, 0}
)

// checkTrust reads what OpenSSL appends to a TRUSTED CERTIFICATE: the usages that it is trusted
// for and those that it is rejected for. Bundles of distributions list distrusted CAs this way, so
// a rejection must not be lost.
func checkTrust(aux cryptobyte.String) error {
	if aux.Empty() {
		return nil
	}
	var settings, trusted, rejected cryptobyte.String
	var hasTrusted, hasRejected bool
	if !aux.ReadASN1(&settings, cbasn1.SEQUENCE) || !aux.Empty() ||
		!settings.ReadOptionalASN1(&trusted, &hasTrusted, cbasn1.SEQUENCE) ||
		!settings.ReadOptionalASN1(&rejected, &hasRejected, cbasn1.Tag(0).ContextSpecific().Constructed()) {
		return errors.New("its trust settings cannot be read")
	}
	allowed, err := namesTLS(trusted)
	if err != nil {
		return err
	}
	refused, err := namesTLS(rejected)
	if err != nil {
		return err
	}
	if refused || hasTrusted && !allowed {
		return errors.New("its trust settings (openssl x509 -trustout) do not trust it for TLS")
	}
	return nil
}

// namesTLS says whether a list of usages has one of TLS.
func namesTLS(list cryptobyte.String) (bool, error) {
	found := false
	for !list.Empty() {
		var usage asn1.ObjectIdentifier
		if !list.ReadASN1ObjectIdentifier(&usage) {
			return false, errors.New("its trust settings cannot be read")
		}
		found = found || usage.Equal(oidServerAuth) || usage.Equal(oidClientAuth) || usage.Equal(oidAnyUsage)
	}
	return found, nil
}
