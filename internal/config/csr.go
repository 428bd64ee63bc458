package config

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/program"
)

// keyAlgorithms repeats package keygen's names, because stages do not import one another; a test
// of internal/enroll holds the two lists together.
var keyAlgorithms = []string{"RSA-2048", "RSA-3072", "RSA-4096", "ECDSA-P256", "ECDSA-P384", "ECDSA-P521", "Ed25519"}

// specialCharacters are refused in CN and O, as the ONAP client refused them.
const specialCharacters = `~#@*$+%!()?/{}<>|_^`

func (l *loader) certificate() enroll.Certificate {
	return enroll.Certificate{KeyAlgorithm: l.keyAlgorithm(l.Value("KEY_ALGORITHM")), Template: l.template()}
}

func (l *loader) keyAlgorithm(text string) string {
	for _, name := range keyAlgorithms {
		if strings.EqualFold(name, text) {
			return name
		}
	}
	l.Reject("KEY_ALGORITHM", program.SuggestWriting(meantAlgorithm(text)))
	return ""
}

// meantAlgorithm finds the algorithm that other programs call by the name, or "".
func meantAlgorithm(text string) string {
	name := strings.NewReplacer("-", "", "_", "", " ", "", "/", "").Replace(strings.ToUpper(text))
	switch name {
	case "RSA":
		return "RSA-2048"
	case "EC", "ECDSA", "ECC", "PRIME256V1":
		return "ECDSA-P256"
	case "EDDSA", "EDWARDS25519":
		return "Ed25519"
	}
	for _, known := range keyAlgorithms {
		family, size, _ := strings.Cut(known, "-")
		number := strings.TrimPrefix(size, "P")
		others := []string{
			family + size, size, number, family + number, "EC" + number, "EC" + size, "SECP" + number + "R1",
		}
		if size != "" && slices.Contains(others, name) {
			return known
		}
	}
	known, _ := program.Closest(text, keyAlgorithms)
	return known
}

func (l *loader) template() *x509.CertificateRequest {
	l.commonName(l.Value("COMMON_NAME"))
	if c := firstOf(l.Value("ORGANIZATION"), specialCharacters); c != "" {
		l.Reject("ORGANIZATION", "it contains "+c)
	}
	if l.Value("COUNTRY") != "" && !isCountry(l.Value("COUNTRY")) {
		l.Reject("COUNTRY", program.SuggestWriting(meantCountry(l.Value("COUNTRY"))))
	}
	for _, name := range []string{"COMMON_NAME", "ORGANIZATION", "STATE"} {
		// The subject is encoded without spaces at its ends, so this would leave the attribute out.
		if value := l.Value(name); value != "" && strings.TrimSpace(value) == "" {
			l.Reject(name, "it is blank")
		}
	}
	l.bounds()
	template := &x509.CertificateRequest{}
	l.sans(l.Value("SANS"), template)
	l.subject(template)
	return template
}

// commonName refuses what the ONAP client refused, whose users know these rules.
func (l *loader) commonName(name string) {
	// A regular expression is made only where it may find something: every start of every pod comes by here.
	var ipv4, port string
	if strings.Count(name, ".") >= 3 {
		ipv4 = regexp.MustCompile(`[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}`).FindString(name)
	}
	if strings.Contains(name, ":") {
		port = regexp.MustCompile(`:[0-9]{1,5}`).FindString(name)
	}
	switch c := firstOf(name, specialCharacters); {
	case strings.Contains(name, "http://") || strings.Contains(name, "https://"):
		l.Reject("COMMON_NAME", "it contains a scheme")
	case c != "":
		l.Reject("COMMON_NAME", "it contains "+c)
	case ipv4 != "":
		l.Reject("COMMON_NAME", "it contains "+ipv4)
	case port != "":
		l.Reject("COMMON_NAME", "it contains "+port)
	}
}

// firstOf returns the first character of text that is one of chars, or "".
func firstOf(text, chars string) string {
	if i := strings.IndexAny(text, chars); i >= 0 {
		return text[i : i+1]
	}
	return ""
}

// subject encodes the name as the ONAP client's JDK did, byte for byte, so
// that a certificate keeps its subject through a migration: one attribute to
// an RDN, in DER order L, OU, O, ST, C, CN (which RFC 4514 prints the other
// way round), PrintableString where the characters allow it, else UTF8String.
func (l *loader) subject(template *x509.CertificateRequest) {
	if !l.readable("LOCATION", "ORGANIZATION_UNIT", "ORGANIZATION", "STATE", "COMMON_NAME") {
		return
	}
	type attributeTypeAndValue struct {
		Type  asn1.ObjectIdentifier
		Value asn1.RawValue
	}
	// The SET OF has one member, so a slice type whose name
	// ends in SET is all that encoding/asn1 needs.
	type relativeDistinguishedNameSET []attributeTypeAndValue

	var rdns []relativeDistinguishedNameSET
	for _, a := range []struct {
		arc   int // of id-at, 2.5.4 (RFC 5280, appendix A.1)
		value string
	}{{7, l.Value("LOCATION")}, {11, l.Value("ORGANIZATION_UNIT")}, {10, l.Value("ORGANIZATION")},
		{8, l.Value("STATE")}, {6, l.Value("COUNTRY")}, {3, l.Value("COMMON_NAME")}} {
		value := strings.TrimSpace(a.value)
		if value == "" {
			continue
		}
		tag := asn1.TagUTF8String
		if !strings.ContainsFunc(value, notPrintableString) {
			tag = asn1.TagPrintableString
		}
		rdns = append(rdns, relativeDistinguishedNameSET{{
			Type: asn1.ObjectIdentifier{2, 5, 4, a.arc}, Value: asn1.RawValue{Tag: tag, Bytes: []byte(value)},
		}})
	}
	der, err := asn1.Marshal(rdns)
	if err != nil {
		panic("config: encoding a subject of strings: " + err.Error())
	}
	var sequence pkix.RDNSequence
	if _, err := asn1.Unmarshal(der, &sequence); err != nil {
		panic("config: reading back a subject of checked strings: " + err.Error())
	}
	template.RawSubject = der
	template.Subject.FillFromRDNSequence(&sequence)
}

// readable rejects what no certificate should carry: control characters and broken UTF-8.
func (l *loader) readable(names ...string) bool {
	ok := true
	for _, name := range names {
		if strings.ContainsFunc(l.Value(name), func(r rune) bool {
			return r == utf8.RuneError ||
				unicode.IsControl(r)
		}) {
			l.Reject(name, "it has control characters or is not UTF-8")
			ok = false
		}
	}
	return ok
}

// notPrintableString tells a character outside ASN.1's PrintableString (X.680, 41.4).
func notPrintableString(r rune) bool {
	switch {
	case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', strings.ContainsRune(" '()+,-./:=?", r):
		return false
	}
	return true
}

// bounds warns of values that are longer than RFC 5280,
// appendix A.1, has it. Some CAs take them, so they are sent.
func (l *loader) bounds() {
	for _, b := range []struct {
		variable, attribute, bound string
		most                       int
		advice                     string
	}{
		{"COMMON_NAME", "CN", "ub-common-name", 64, ": put the long host name into SANS, and a shorter one here"},
		{"ORGANIZATION", "O", "ub-organization-name", 64, ""},
		{"ORGANIZATION_UNIT", "OU", "ub-organizational-unit-name", 64, ""},
		{"LOCATION", "L", "ub-locality-name", 128, ""},
		{"STATE", "ST", "ub-state-name", 128, ""},
	} {
		if n := utf8.RuneCountInString(strings.TrimSpace(l.Value(b.variable))); n > b.most {
			l.Warn(b.variable, fmt.Sprintf("has %d characters, more than the %d that RFC 5280 allows in %s (%s): "+
				"many CAs refuse the request or cut the name off%s", n, b.most, b.attribute, b.bound, b.advice))
		}
	}
}

func isCountry(s string) bool { return len(s) == 2 && strings.Contains(countries, " "+s+" ") }

// meantCountry finds the code that is meant by another one, or "".
func meantCountry(text string) string {
	code := strings.ToUpper(strings.TrimSpace(text))
	if meant, ok := otherCodes[code]; ok {
		return meant
	}
	if isCountry(code) {
		return code
	}
	return ""
}

// otherCodes are those of common use that are not in ISO 3166-1 alpha-2.
var otherCodes = map[string]string{
	"UK": "GB", "GBR": "GB", "EL": "GR", "GRC": "GR", "USA": "US", "CAN": "CA", "AUS": "AU", "CHN": "CN", "JPN": "JP",
	"IND": "IN", "BRA": "BR", "KOR": "KR", "GER": "DE", "DEU": "DE", "FRA": "FR", "ESP": "ES", "ITA": "IT", "NLD": "NL",
	"BEL": "BE", "AUT": "AT", "CHE": "CH", "POL": "PL", "SWE": "SE", "NOR": "NO", "DNK": "DK", "FIN": "FI", "PRT": "PT",
	"IRL": "IE", "CZE": "CZ",
}

// countries are the ISO 3166-1 alpha-2 codes, each between two spaces.
const countries = " AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ " +
	"BL BM BN BO BQ BR BS BT BV BW " +
	"BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG " +
	"EH ER ES ET FI FJ FK FM FO FR " +
	"GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN " +
	"IO IQ IR IS IT JE JM JO JP KE " +
	"KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML " +
	"MM MN MO MP MQ MR MS MT MU MV " +
	"MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW " +
	"PY QA RE RO RS RU RW SA SB SC " +
	"SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR " +
	"TT TV TW TZ UA UG UM US UY UZ " +
	"VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW "
