package cmp

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
)

// The last RDN is the first of the text.
func TestParseDN_keepsOrderAsWritten(t *testing.T) {
	for text, want := range map[string]string{
		"CN=ManagementCA":                 "CN=ManagementCA",
		"CN=CA,O=Example,C=SE":            "C=SE,O=Example,CN=CA",
		"C=SE,O=Example,CN=CA":            "CN=CA,O=Example,C=SE",
		" cn = CA , o = Example Ltd ":     "O=Example Ltd,CN=CA",
		"CN=CA;O=Example":                 "O=Example,CN=CA",
		`CN=Doe\, John,O="a, b"`:          `O=a\, b,CN=Doe\, John`,
		`CN=a\2Cb`:                        `CN=a\,b`,
		`CN=\C3\A5ngström`:                "CN=ångström",
		`CN=a\ `:                          `CN=a\ `,
		"CN=#0c024341":                    "CN=CA",
		"2.5.4.3=CA,OID.2.5.4.10=Example": "O=Example,CN=CA",
		"O=Example+CN=CA":                 "CN=CA+O=Example",
		"UID=7,E=ca@example": "1.2.840.113549.1.9.1=#0c0a6361406578616d706c65," +
			"0.9.2342.19200300.100.1.1=#130137",
	} {
		der, err := ParseDN(text)
		require.NoError(t, err, text)
		assert.Equal(t, want, pki.DN(der), text)
	}
}

func TestParseDN_fault_isNamed(t *testing.T) {
	want := golden.Load(t, "names.txt")
	for text := range golden.Read(t, "names.txt") {
		_, err := ParseDN(text)
		require.Error(t, err, text)
		want.Equal(t, text, err.Error())
	}
	_, err := ParseDN("  ")
	assert.EqualError(t, err, `reading distinguished name "  ": is empty`)
	_, err = ParseDN(strings.Repeat("CN=a,", 200) + "CN=a")
	assert.ErrorContains(t, err, "has more than 128 parts")
}

func TestParseDN_stringTypes(t *testing.T) {
	der := fixture.Must(ParseDN("C=SE,CN=x,DC=y"))
	// PrintableString 13, UTF8String 0c, IA5String 16
	assert.Equal(t, "302c310b3009060355040613025345310a300806035504030c01783111300f060a0992268993f22c640119160179",
		hex.EncodeToString(der))
}

func TestSameName(t *testing.T) {
	for _, row := range []struct {
		a, b string
		same bool
	}{
		{"CN=CA,O=Example,C=SE", "CN=CA,O=Example,C=SE", true},
		{"CN=CA,O=Example,C=SE", "C=SE,O=Example,CN=CA", true},
		{"CN=CA,O=Example", "CN=ca,O=EXAMPLE", true},
		{"CN=My  CA", `CN=My CA\ `, true},
		{"CN=CA", "CN=#130243 41", false}, // not hexadecimal, so not a name
		{"CN=CA", "CN=#13024341", true},   // PrintableString
		{"CN=CA", "CN=CA,O=Example", false},
		{"CN=CA,CN=CA", "CN=CA", false},
		{"CN=CA", "O=CA", false},
		{"CN=CA+O=Example", "CN=CA,O=Example", false},
		{"CN=a b", "CN=ab", false},
		{`CN=a+O=b`, `CN=a\+O=b`, false},
		{"CN=#1c0400000041", "CN=#1c0400000042", false}, // UniversalString, which encoding/asn1 does not read
		{"CN=#1c0400000041", "CN=#1c0400000041", true},
		{"CN=#040141", "CN=#0c045b36355d", false}, // the bytes [65], and the text "[65]"
		{"CN=#1e020041", "CN=a", true},            // BMPString
	} {
		a, _ := ParseDN(row.a)
		b, _ := ParseDN(row.b)
		assert.Equal(t, row.same, pki.SameName(a, b), "%s and %s", row.a, row.b)
	}
	assert.False(t, pki.SameName([]byte{0x30}, []byte{0x30}), "names that do not parse")
}

func TestGeneralName(t *testing.T) {
	name, ok := DirectoryName(nil).Name()
	assert.True(t, ok)
	assert.Equal(t, []byte{0x30, 0}, name)
	assert.Equal(t, "", DirectoryName(nil).String())
	_, ok = GeneralName{0x82, 1, 'x'}.Name()
	assert.False(t, ok)
	assert.Equal(t, "GeneralName 820178", GeneralName{0x82, 1, 'x'}.String())
	assert.Equal(t, "a name that cannot be read (asn1: syntax error: truncated tag or length)",
		DirectoryName([]byte{0x30, 1, 0}).String())
}

func FuzzParseDN(f *testing.F) {
	for _, seed := range []string{"CN=CA,O=Example,C=SE", `CN=Doe\, John+UID="7",2.5.4.10=#0c0141`, `CN=\C3\A5;DC=x`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		der, err := ParseDN(text)
		if err != nil {
			return
		}
		require.NoError(t, checkDER(der, 0))
		_ = pki.DN(der)
	})
}

func FuzzAlternativeNames(f *testing.F) {
	f.Add([]byte{0x30, 3, 0x82, 1, 'x'}, []byte{0x30, 0})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		first, errFirst := alternativeNames(withSAN(a))
		second, errSecond := alternativeNames(withSAN(b))
		if errFirst == nil && errSecond == nil && len(first) != len(second) {
			require.NotEqual(t, first, second)
		}
	})
}
