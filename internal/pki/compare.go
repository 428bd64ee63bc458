package pki

import (
	"encoding/asn1"
	"fmt"
	"slices"
	"strings"
)

// SameName says whether two DER Names are the same name: the same RDNs, in whatever order, with values
// compared as RFC 5280, 7.1 wants (case and runs of spaces do not matter, nor the kind of string).
// The order is let go because EJBCA gives names back in reverse and operators write them either way. Names
// that cannot be read are not the same as anything.
func SameName(a, b []byte) bool { return SameNameAs(a)(b) }

// SameNameAs is SameName for one name and many others, and takes the one apart only once: it may be large.
func SameNameAs(a []byte) func(b []byte) bool {
	x, okX := normalName(a)
	return func(b []byte) bool {
		y, okY := normalName(b)
		return okX && okY && slices.Equal(x, y)
	}
}

// normalName returns the RDNs of a name in a form that can be compared, sorted.
func normalName(der []byte) ([]string, bool) {
	rdns, ok := RDNs(der)
	slices.Sort(rdns)
	return rdns, ok
}

// RDNs returns the RDNs of a DER Name in their order, each in a form that can be compared with others, and false for a
// name that cannot be read.
func RDNs(der []byte) ([]string, bool) {
	var name []attributeSET
	if rest, err := asn1.Unmarshal(der, &name); err != nil || len(rest) > 0 {
		return nil, false
	}
	rdns := make([]string, 0, len(name))
	for _, rdn := range name {
		values := make([]string, 0, len(rdn))
		for _, attribute := range rdn {
			values = append(values, attribute.Type.String()+"="+normalValue(attribute.Value))
		}
		slices.Sort(values)
		rdns = append(rdns, strings.Join(values, "+"))
	}
	return rdns, true
}

// attributeSET is an RDN (RFC 5280, 4.1.2.4); encoding/asn1 goes by the end of its name.
type attributeSET []struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

// normalValue returns a string so that the same strings are equal, and any other value as its DER.
func normalValue(value asn1.RawValue) string {
	var text any
	if _, err := asn1.Unmarshal(value.FullBytes, &text); err == nil {
		if text, isString := text.(string); isString {
			return fmt.Sprintf("%q", strings.ToLower(strings.Join(strings.Fields(text), " ")))
		}
	}
	return fmt.Sprintf("%x", value.FullBytes)
}
