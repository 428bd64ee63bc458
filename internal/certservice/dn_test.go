package certservice

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseDN_reads(t *testing.T) {
	for _, row := range []struct {
		name, text string
		der        string // what openssl asn1parse shows, less its lengths
	}{
		{"a common name", "CN=ManagementCA", "3017311530130603550403130c4d616e6167656d656e744341"},
		{"RDNs in the order written", "CN=a,O=b", "3018310a300806035504031301613" + "10a3008060355040a130162"},
		{"RDNs in the other order", "O=b,CN=a", "3018310a3008060355040a130162" + "310a30080603550403130161"},
		{"spaces around the parts", " CN = a , O = b ", "3018310a300806035504031301613" + "10a3008060355040a130162"},
		{"any case of the type", "cn=a,o=b", "3018310a300806035504031301613" + "10a3008060355040a130162"},
		{"two attributes in one RDN", "CN=a+O=b", "301631143008060355040313016130" + "08060355040a130162"},
		{"a dotted OID", "2.5.4.3=a", "300c310a30080603550403130161"},
		{"a dotted OID with its prefix", "OID.2.5.4.3=a", "300c310a30080603550403130161"},
		{"an escaped comma", `CN=a\,b`, "300e310c300a06035504031303612c62"},
		{"an escaped byte", `CN=a\2Cb`, "300e310c300a06035504031303612c62"},
		{"an escaped space at the end", `CN=a\ `, "300d310b3009060355040313026120"},
		{"a quoted value", `CN="a,b"`, "300e310c300a06035504031303612c62"},
		{"a quoted value among others", `CN="a" , O=b`, "3018310a300806035504031301613" + "10a3008060355040a130162"},
		{"a value in hexadecimal", "CN=#0c0161", "300c310a300806035504030c0161"},
		{"letters beyond ASCII", "CN=Ä", "300d310b300906035504030c02c384"},
		{"letters beyond ASCII, escaped", `CN=\C3\84`, "300d310b300906035504030c02c384"},
		{"a domain component", "DC=a", "3013" + "3111300f060a0992268993f22c640119160161"},
	} {
		t.Run(row.name, func(t *testing.T) {
			name, err := parseDN(row.text)
			require.NoError(t, err)
			der, err := asn1.Marshal(name)
			require.NoError(t, err)
			assert.Equal(t, row.der, hex.EncodeToString(der))
		})
	}
}

func TestParseDN_refuses(t *testing.T) {
	for text, want := range map[string]string{
		"ManagementCA":             `has "ManagementCA" where an attribute such as "CN=name" is expected`,
		"":                         `has "" where an attribute such as "CN=name" is expected`,
		"CN=a,":                    `has "" where an attribute such as "CN=name" is expected`,
		"CN=a,,O=b":                `has the unknown attribute type ",O" (any type can be written as a dotted OID)`,
		"=a":                       `has "=a" where an attribute such as "CN=name" is expected`,
		"CN=":                      `has a value of CN that is empty`,
		"CN=a+":                    `has "" where an attribute such as "CN=name" is expected`,
		"XX=a":                     `has the unknown attribute type "XX" (any type can be written as a dotted OID)`,
		"9.9=a":                    `has the attribute type "9.9", which is not an OID`,
		"CN=a;O=b":                 `has a value of CN that has ';', which must be escaped with a backslash`,
		`CN=a"b`:                   `has a value of CN that has '"', which must be escaped with a backslash`,
		`CN=a\x`:                   `has a value of CN that has a backslash before something that needs none`,
		`CN=a\`:                    `has a value of CN that has a backslash before something that needs none`,
		`CN="a`:                    `has a value of CN that has no closing quote`,
		`CN="a"b`:                  `has a value of CN that is followed by neither "," nor "+" nor the end`,
		`CN=""`:                    `has a value of CN that is empty`,
		"CN=#0c01":                 `has a value of CN that is not DER after the "#"`,
		"CN=#xx":                   `has a value of CN that is not hexadecimal after the "#"`,
		`CN=\FF`:                   `has a value of CN that is not UTF-8`,
		"CN=a\x00":                 `has a value of CN that has '\x00', which must be escaped with a backslash`,
		"O=b,CN=a,99999999999.1=c": `has the unknown attribute type "99999999999.1" (any type can be written as a dotted OID)`,
	} {
		_, err := parseDN(text)
		assert.EqualError(t, err, want, text)
	}
}

func FuzzParseDN(f *testing.F) {
	for _, text := range []string{"CN=ManagementCA", `CN=a\,b+O="c, d",DC=e`, "2.5.4.3=#0c0161", `CN=\C3\84`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		name, err := parseDN(text)
		if err != nil {
			return
		}
		der, err := asn1.Marshal(name)
		if err != nil {
			t.Fatalf("taken, but cannot be encoded: %v", err)
		}
		var back pkix.RDNSequence
		if rest, err := asn1.Unmarshal(der, &back); err != nil || len(rest) > 0 {
			t.Fatalf("taken, but its encoding cannot be read: %v", err)
		}
	})
}
