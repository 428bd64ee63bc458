package pkcs12

import (
	"encoding/asn1"
	"fmt"
)

// weak names the algorithms of old files that are not read on purpose: DES, RC4 and MD5 protect nothing.
var weak = map[string]string{
	"1.2.840.113549.1.5.1":    "pbeWithMD2AndDES",
	"1.2.840.113549.1.5.3":    "pbeWithMD5AndDES",
	"1.2.840.113549.1.5.4":    "pbeWithMD2AndRC2",
	"1.2.840.113549.1.5.6":    "pbeWithMD5AndRC2",
	"1.2.840.113549.1.5.10":   "pbeWithSHA1AndDES",
	"1.2.840.113549.1.5.11":   "pbeWithSHA1AndRC2",
	"1.2.840.113549.1.12.1.1": "pbeWithSHA1And128BitRC4",
	"1.2.840.113549.1.12.1.2": "pbeWithSHA1And40BitRC4",
	"1.3.14.3.2.7":            "DES-CBC",
	"1.2.840.113549.3.2":      "RC2-CBC",
	"1.2.840.113549.3.4":      "RC4",
	"1.2.840.113549.2.5":      "MD5",
	"1.2.840.113549.2.6":      "HMAC-MD5",
}

// unsupported says that an algorithm is not read, and how the file can be converted.
func unsupported(what string, oid asn1.ObjectIdentifier, want string) error {
	name, known := weak[oid.String()]
	if !known {
		return fmt.Errorf("%s %v is not supported, want %s", what, oid, want)
	}
	return fmt.Errorf("%s %v (%s) is too weak and not supported, want %s: convert a PKCS#12 file with "+
		"openssl pkcs12 -legacy -in FILE -out NEW.pem, a key with "+
		"openssl pkcs8 -topk8 -provider legacy -provider default -in FILE -out NEW.pem", what, oid, name, want)
}
