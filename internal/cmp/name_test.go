package cmp

import (
	"encoding/hex"
	"fmt"
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
	golden.Play(t, "order.txt", func(t *testing.T, text, _ string) string { return pki.DN(dn(text)) })
	assert.Equal(t, "O=Example Ltd,CN=CA", pki.DN(dn(" cn = CA , o = Example Ltd ")))
	assert.Equal(t, `CN=a\ `, pki.DN(dn(`CN=a\ `)))
}

func TestParseDN_fault_isNamed(t *testing.T) {
	golden.Play(t, "names.txt", func(t *testing.T, text, _ string) string {
		_, err := ParseDN(text)
		return fmt.Sprint(err)
	})
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
	for names, want := range golden.Read(t, "same.txt") {
		one, other, _ := strings.Cut(names, " and ")
		a, _ := ParseDN(one)
		b, _ := ParseDN(other)
		assert.Equal(t, strings.HasPrefix(want, "the same"), pki.SameName(a, b), names)
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
