package pki

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certfetcher/certfetcher/test/fixture"
)

var hugeSerial = new(big.Int).Lsh(big.NewInt(1), 200) // longer than RFC 5280 allows

// newCRL makes a CRL with entries of all sorts.
func newCRL(t testing.TB, ca *fixture.CA, change func(*x509.RevocationList)) []byte {
	t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(5), ThisUpdate: year2026, NextUpdate: year2026.AddDate(0, 1, 0)}
	for i, serial := range []*big.Int{big.NewInt(300), big.NewInt(0), big.NewInt(255), hugeSerial, big.NewInt(1),
		big.NewInt(128), big.NewInt(127)} {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{
			SerialNumber: serial, RevocationTime: year2026.AddDate(i*10, 0, 0), ReasonCode: i})
	}
	if change != nil {
		change(list)
	}
	return fixture.Must(x509.CreateRevocationList(rand.Reader, list, ca.Issuing, ca.IssuingKey))
}

// rebuild changes the parts of a tbsCertList: version, algorithm, issuer, thisUpdate, nextUpdate, entries, extensions.
func rebuild(der []byte, change func(parts [][]byte) [][]byte) []byte {
	s, body, tbs := cryptobyte.String(der), cryptobyte.String(nil), cryptobyte.String(nil)
	s.ReadASN1(&body, cbasn1.SEQUENCE)
	body.ReadASN1(&tbs, cbasn1.SEQUENCE)
	var parts [][]byte
	for !tbs.Empty() {
		var part cryptobyte.String
		var tag cbasn1.Tag
		tbs.ReadAnyASN1Element(&part, &tag)
		parts = append(parts, part)
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(bytes.Join(change(parts), nil)) })
		b.AddBytes(body)
	})
	return b.BytesOrPanic()
}

func TestParseCRL_findsWhatIsListed(t *testing.T) {
	ca := fixture.Must(fixture.NewCA("List"))
	der := newCRL(t, ca, nil)
	want := fixture.Must(x509.ParseRevocationList(der))
	c := fixture.Must(ParseCRL(der))

	assert.Equal(t, want.RawIssuer, c.RawIssuer)
	assert.Equal(t, []any{want.ThisUpdate, want.NextUpdate, want.Number, want.AuthorityKeyId},
		[]any{c.ThisUpdate, c.NextUpdate, c.Number, c.AuthorityKeyID})
	assert.Equal(t, 7, c.Len())
	for i, reason := range []string{"unspecified", "keyCompromise", "cACompromise", "affiliationChanged", "superseded",
		"cessationOfOperation", "certificateHold"} {
		entry := want.RevokedCertificateEntries[i]
		found, ok := c.Find(entry.SerialNumber)
		assert.True(t, ok, reason)
		assert.Equal(t, Revocation{entry.RevocationTime, reason}, found)
	}
	for _, serial := range []int64{2, 126, 129, 254, 256, 299, 301, 1 << 40, -1, -128} {
		_, ok := c.Find(big.NewInt(serial))
		assert.False(t, ok, serial)
	}
	assert.NoError(t, c.CheckSignatureFrom(ca.Issuing))
	assert.Error(t, c.CheckSignatureFrom(fixture.Must(fixture.NewCA("List")).Issuing))
	der[slices.Index(der, 0x17)+3] ^= 1 // a digit of thisUpdate
	assert.Error(t, fixture.Must(ParseCRL(der)).CheckSignatureFrom(ca.Issuing))

	empty := newCRL(t, ca, func(l *x509.RevocationList) { l.RevokedCertificateEntries = nil })
	_, found := fixture.Must(ParseCRL(empty)).Find(big.NewInt(0))
	assert.False(t, found)
}

// Authorities have names that crypto/x509 reads in no CRL; that it reads no CRL of version 1 either, is documented.
func TestParseCRL_readsMoreThanCryptoX509(t *testing.T) {
	der := newCRL(t, fixture.Must(fixture.NewCA("List")), nil)
	for name, change := range map[string]func(parts [][]byte) [][]byte{
		"an underscore in a PrintableString": func(parts [][]byte) [][]byte {
			parts[2] = bytes.Replace(parts[2], []byte("List Issuing"), []byte("List_Issuing"), 1)
			return parts
		},
		"version 1": func(parts [][]byte) [][]byte { return parts[1:6] },
	} {
		changed := rebuild(der, change)
		_, err := x509.ParseRevocationList(changed)
		require.Error(t, err, name)
		c, err := ParseCRL(changed)
		require.NoError(t, err, name)
		_, found := c.Find(big.NewInt(128))
		assert.True(t, found, name)
	}
}

func TestParseCRL_refusesWhatItCannotRead(t *testing.T) {
	ca := fixture.Must(fixture.NewCA("List"))
	der := newCRL(t, ca, nil)
	without := func(part int) []byte {
		return rebuild(der, func(parts [][]byte) [][]byte { return slices.Delete(parts, part, part+1) })
	}
	entries := func(text string) []byte {
		return rebuild(der, func(parts [][]byte) [][]byte {
			parts[5] = append([]byte{0x30, byte(len(text))}, text...)
			return parts
		})
	}
	extended := func(id asn1.ObjectIdentifier, critical bool, value string) []byte {
		return newCRL(t, ca, func(l *x509.RevocationList) {
			l.ExtraExtensions = []pkix.Extension{{Id: id, Critical: critical, Value: []byte(value)}}
		})
	}
	scoped := func(value string) []byte { return extended(oidDistributionPoint, true, value) }
	entryExtended := func(id asn1.ObjectIdentifier, critical bool) []byte {
		return newCRL(t, ca, func(l *x509.RevocationList) {
			entry := &l.RevokedCertificateEntries[3]
			entry.ReasonCode = 0
			entry.ExtraExtensions = []pkix.Extension{{Id: id, Critical: critical, Value: []byte{5, 0}}}
		})
	}
	withoutTimes := rebuild(der, func(parts [][]byte) [][]byte { return slices.Delete(parts, 3, 5) })
	unknown, foreign := asn1.ObjectIdentifier{1, 2, 3}, asn1.ObjectIdentifier{2, 5, 29, 29}
	const (
		time     = "\x17\x0d261127120000Z"
		five     = "\x30\x12\x02\x01\x05" + time // an entry
		noReason = "\x30\x20\x02\x01\x05" + time + "\x30\x0c\x30\x0a\x06\x03\x55\x1d\x15\x04\x03\x04\x01\x05"
	)
	for name, row := range map[string]struct {
		der  []byte
		want string
	}{
		"nothing":                    {nil, "not the DER of a CRL, or was cut short"},
		"text":                       {[]byte("hello"), "not the DER of a CRL"},
		"cut short":                  {der[:len(der)-1], "was cut short"},
		"trailing bytes":             {append(slices.Clone(der), 0), "not the DER of a CRL"},
		"a certificate":              {ca.Root.Raw, "not the DER of a CRL"},
		"no issuer":                  {without(2), "not the DER of a CRL"},
		"no thisUpdate":              {withoutTimes, "not the DER of a CRL"},
		"no nextUpdate":              {without(4), "it has no nextUpdate"},
		"extensions in version 1":    {without(0), "not the DER of a CRL"},
		"an unknown extension":       {extended(unknown, true, "\x05\x00"), "OID 1.2.3"},
		"an extension twice":         {extended(oidCRLNumber, false, "\x02\x01\x01"), "the extension 2.5.29.20 twice"},
		"a delta CRL":                {extended(oidDeltaCRL, true, "\x02\x01\x01"), "it is a delta CRL"},
		"no SEQUENCE as scope":       {scoped("\x05\x00"), "issuingDistributionPoint that cannot be read"},
		"a scope without end":        {scoped("\x30\x05\x81\x01\xff"), "cannot be read"},
		"a scope with something new": {scoped("\x30\x03\x86\x01\xff"), "cannot be read"},
		"users and authorities":      {scoped("\x30\x06\x81\x01\xff\x82\x01\xff"), "for no certificates"},
		"a directory name":           {scoped("\x30\x06\xa0\x04\xa0\x02\xa4\x00"), "not given by a URI"},
		"a relative name":            {scoped("\x30\x04\xa0\x02\xa1\x00"), "not given by a URI"},
		"an entry of nothing":        {entries("\x30\x00"), "entry number 1 cannot be read"},
		"an entry that is a number":  {entries("\x02\x01\x01"), "entry number 1 cannot be read"},
		"a second entry without time": {entries(five + "\x30\x03\x02\x01\x05"),
			"entry number 2 cannot be read"},
		"a serial number with octets too many": {entries("\x30\x13\x02\x02\x00\x05" + time), "entry number 1"},
		"a time that is none":                  {entries(strings.Replace(five, "2611", "2613", 1)), "entry number 1"},
		"bytes after an entry":                 {entries("\x30\x15" + five[2:] + "\x02\x01\x05"), "entry number 1"},
		"a reason that is no number":           {entries(noReason), "entry number 1"},
		"an entry with an unknown extension":   {entryExtended(unknown, true), "critical extension"},
		"an entry of another issuer":           {entryExtended(foreign, true), "other issuers"},
	} {
		_, err := ParseCRL(row.der)
		assert.ErrorContains(t, err, row.want, name)
	}
	for name, der := range map[string][]byte{
		"an extension that need not be known":      extended(unknown, false, "\x05\x00"),
		"one of an entry that need not be known":   entryExtended(unknown, false),
		"a scope that is all":                      scoped("\x30\x00"),
		"a scope that says what is the default":    scoped("\x30\x03\x84\x01\x00"),
		"a list of entries, and nothing is in it":  entries(""),
		"an entry twice, which some programs make": entries(five + five),
	} {
		_, err := ParseCRL(der)
		assert.NoError(t, err, name)
	}
}

func TestCRL_newer_byTimeAndThenByNumber(t *testing.T) {
	crl := func(hours, number int64) *CRL {
		c := &CRL{ThisUpdate: year2026.Add(time.Duration(hours) * time.Hour)}
		if number > 0 {
			c.Number = big.NewInt(number)
		}
		return c
	}
	inOrder := []*CRL{crl(1, 0), crl(1, 1), crl(1, 2), crl(2, 0), crl(3, 1)}
	for i, c := range inOrder {
		for j, other := range inOrder {
			assert.Equal(t, i > j, c.Newer(other), "%d and %d", i, j)
		}
	}
}

// FuzzParseCRL: what crypto/x509 reads as well has the same entries and dates.
func FuzzParseCRL(f *testing.F) {
	ca := fixture.Must(fixture.NewCA("List"))
	f.Add(newCRL(f, ca, nil))
	f.Add(newCRL(f, ca, func(l *x509.RevocationList) {
		l.ExtraExtensions = []pkix.Extension{{Id: oidDistributionPoint, Critical: true,
			Value: []byte("\x30\x0d\xa0\x08\xa0\x06\x86\x04http\x81\x01\xff")}}
	}))
	f.Fuzz(func(t *testing.T, der []byte) {
		c, err := ParseCRL(der)
		if err != nil {
			return
		}
		c.Uncovered(&x509.Certificate{})
		want, err := x509.ParseRevocationList(der)
		if err != nil {
			return
		}
		require.Equal(t, []time.Time{want.ThisUpdate, want.NextUpdate}, []time.Time{c.ThisUpdate, c.NextUpdate})
		require.Equal(t, want.RawIssuer, c.RawIssuer)
		require.Len(t, want.RevokedCertificateEntries, c.Len())
		for _, entry := range want.RevokedCertificateEntries {
			_, found := c.Find(entry.SerialNumber)
			require.True(t, found, entry.SerialNumber)
		}
	})
}

// Of a large authority: 200,000 entries.
func BenchmarkParseCRL(b *testing.B) {
	der := newCRL(b, fixture.Must(fixture.NewCA("Large")), func(l *x509.RevocationList) {
		for range 200_000 {
			l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{
				SerialNumber: fixture.Must(rand.Int(rand.Reader, hugeSerial)), RevocationTime: year2026, ReasonCode: 1})
		}
	})
	b.SetBytes(int64(len(der)))
	b.ReportAllocs()
	for b.Loop() {
		fixture.Must(ParseCRL(der))
	}
}
