package truststore

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/internal/pki"
)

// Added is a certificate that was added to the first truststore.
type Added struct {
	Alias   string // the alias it has got; empty in PEM
	Subject string // RFC 4514
	SHA256  string // of the DER, in hexadecimal
	From    string // the truststore that it came from
}

// merge plans the first truststore anew, with what the others have and it has not.
func (r *run) merge(stores []Store) ([]Added, error) {
	loaded := make([]*store, len(stores))
	for i, s := range stores {
		var err error
		if loaded[i], err = r.load(s); err != nil {
			return nil, err
		}
	}
	return r.mergeLoaded(loaded)
}

func (r *run) mergeLoaded(loaded []*store) ([]Added, error) {
	base := loaded[0]
	real, err := r.claim(base.path, codeSave)
	if err != nil {
		return nil, err
	}
	missing, added := base.missing(loaded[1:])
	if len(missing) == 0 {
		return nil, nil
	}
	data, err := base.with(missing, r.now().UnixMilli())
	if err != nil {
		return nil, failed(codeOperation, "merging into truststore %q: %w", base.path, err)
	}
	if err := base.verify(data, missing); err != nil {
		return nil, failed(codeOperation, "merging into truststore %q: %w", base.path, err)
	}
	next := base.file
	next.data = data
	r.changes = append(r.changes, &change{path: base.path, real: real, current: &base.file, next: next, exitCode: codeSave})
	return added, nil
}

// missing are the others' certificates that the store has not, under aliases that are free in it.
func (s *store) missing(others []*store) ([]anchor, []Added) {
	present := map[fingerprint]bool{}
	for _, a := range s.anchors {
		present[fingerprintOf(a.cert)] = true
	}
	names := newAliases(s.format, s.aliases)
	var list []anchor
	var added []Added
	for _, other := range others {
		for _, a := range other.anchors {
			f := fingerprintOf(a.cert)
			if present[f] {
				continue
			}
			present[f] = true
			alias := names.free(a.alias)
			list = append(list, anchor{alias, a.cert})
			added = append(added, Added{Alias: alias, Subject: pki.DN(a.cert.RawSubject), SHA256: f.String(), From: other.path})
		}
	}
	return list, added
}

// with is the store's data with the certificates added; the time, in milliseconds since 1970, is when.
func (s *store) with(added []anchor, when int64) ([]byte, error) {
	switch s.format {
	case keystore.JKS:
		return appendJKS(s.file.data, s.password, added, when)
	case keystore.PKCS12:
		return appendPKCS12(s, added)
	}
	return appendPEM(s.file.data, added), nil
}

// verify reads the merged store before it takes the old one's place: all that was trusted and all that
// was added must be trusted, and each key and alias still be there.
func (s *store) verify(data []byte, added []anchor) error {
	read, err := keystore.OpenClosed(data, s.password)
	if err != nil {
		return fmt.Errorf("reading it back: %w", err)
	}
	format := read.Format
	if format != s.format {
		return fmt.Errorf("reading it back: format is %s, want %s", format, s.format)
	}
	trusted := map[fingerprint]bool{}
	for _, a := range anchors(read.Entries, format) {
		trusted[fingerprintOf(a.cert)] = true
	}
	for _, a := range slices.Concat(s.anchors, added) {
		if f := fingerprintOf(a.cert); !trusted[f] {
			return fmt.Errorf("reading it back: certificate %s is not trusted", f)
		}
	}
	for _, alias := range s.aliases {
		if !slices.Contains(read.Names, alias) {
			return fmt.Errorf("reading it back: entry %q is gone", alias)
		}
	}
	return nil
}

// aliases gives out names that are free.
type aliases struct {
	format keystore.Format
	taken  map[string]bool // in lower case: a JVM makes no difference
}

func newAliases(format keystore.Format, taken []string) aliases {
	a := aliases{format, map[string]bool{}}
	for _, alias := range taken {
		a.taken[strings.ToLower(alias)] = true
	}
	return a
}

// maxAlias bounds the names that are taken over, in characters. JKS has 16 bits for their length.
const maxAlias = 200

// free returns the wanted alias, with a number after it when it is taken, and takes it. A certificate
// out of PEM, which has no aliases, is named as the ONAP post-processor did.
func (a aliases) free(wanted string) string {
	if a.format == keystore.PEM {
		return ""
	}
	name := func(n int) string { return "pem-trusted-certificate-" + strconv.Itoa(n) }
	if wanted != "" {
		wanted = readable(wanted)
		name = func(n int) string {
			if n == 0 {
				return wanted
			}
			return wanted + "-" + strconv.Itoa(n+1)
		}
	}
	for n := 0; ; n++ {
		alias := name(n)
		lower := strings.ToLower(alias)
		if a.taken[lower] {
			continue
		}
		a.taken[lower] = true
		if a.format == keystore.JKS {
			// Java looks up in lower case what it loads as it stands.
			return lower
		}
		return alias
	}
}

// readable replaces what one of the formats or a terminal could choke on: JKS writes characters beyond
// 16 bits in a way of its own, and a wrong one makes the whole store unreadable.
func readable(alias string) string {
	runes := []rune(alias)
	for i, c := range runes {
		if c > 0xffff || c == unicode.ReplacementChar || !unicode.IsPrint(c) {
			runes[i] = '_'
		}
	}
	return string(runes[:min(len(runes), maxAlias)])
}
