package output

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/certfetcher/certfetcher/internal/keystore"
)

// The formats of stores with passwords.
const (
	TypeP12 = "P12"
	TypeJKS = "JKS"
)

var p12Format = storeFormat(TypeP12, keystore.PKCS12, "the trusted certificates, marked as Java needs it",
	func(e *encoder, entries []keystore.Entry, password string) ([]byte, error) {
		return keystore.EncodePKCS12(entries, password, keystore.Profile(e.cfg.P12Profile))
	}, "PKCS12", "PFX", "PKCS")

var jksFormat = storeFormat(TypeJKS, keystore.JKS, "the trusted certificates",
	func(e *encoder, entries []keystore.Entry, password string) ([]byte, error) {
		return keystore.EncodeJKS(entries, password, e.now)
	}, "JCEKS", "JAVA", "KEYSTORE")

// storeFormat is a format of two stores, whose files have its name in lower case as extension.
func storeFormat(
	name string, format keystore.Format, trusted string,
	encode func(e *encoder, entries []keystore.Entry, password string) ([]byte, error), otherNames ...string,
) Format {
	keyName, trustName := "keystore."+strings.ToLower(name), "truststore."+strings.ToLower(name)
	return Format{
		Name: name, OtherNames: otherNames, hasPasswords: true,
		truststore: File{Name: trustName, Content: trusted,
			encode: func(e *encoder) ([]byte, error) { return encode(e, e.trustedEntries(), e.passwords.truststore) }},
		keystores: []File{{Name: keyName, holds: privateKey, Content: "private key and chain under `KEYSTORE_ALIAS`",
			encode: func(e *encoder) ([]byte, error) {
				entry := keystore.Entry{Alias: e.cfg.KeystoreAlias, Key: e.bundle.Key, Chain: e.bundle.Chain}
				return encode(e, []keystore.Entry{entry}, e.passwords.keystore)
			}}},
		read: func(r reader) (Bundle, error) { return r.stores(keyName, trustName, format) },
	}
}

func (e *encoder) trustedEntries() []keystore.Entry {
	entries := make([]keystore.Entry, len(e.bundle.Trusted))
	for i, cert := range e.bundle.Trusted {
		entries[i] = keystore.Entry{Alias: trustedAlias(e.cfg, i), Chain: []*x509.Certificate{cert}, Trusted: true}
	}
	return entries
}

// trustedAlias is the alias of a trusted certificate, which are counted from 1.
func trustedAlias(cfg Config, i int) string { return cfg.TruststoreAliasPrefix + strconv.Itoa(i+1) }

func (r reader) stores(keyName, trustName string, format keystore.Format) (Bundle, error) {
	p := r.passwords()
	keyEntries, err := r.open(keyName, p.keystore, format)
	if err != nil {
		return Bundle{}, err
	}
	if len(keyEntries) != 1 || keyEntries[0].Key == nil || len(keyEntries[0].Chain) == 0 {
		return Bundle{}, r.fault(keyName, "has %s, want one private key with its certificates", describe(keyEntries))
	}
	key := keyEntries[0]
	if !r.anyForm && !sameAlias(key.Alias, r.cfg.KeystoreAlias) {
		return Bundle{}, r.fault(keyName, "has the alias %q, want %q", key.Alias, r.cfg.KeystoreAlias)
	}
	trusted, err := r.open(trustName, p.truststore, format)
	if err != nil {
		return Bundle{}, err
	}
	b := Bundle{Key: key.Key, Chain: key.Chain}
	if r.anyForm {
		b.Trusted = byAlias(trusted)
		return b, nil
	}
	// A Java store has no order: the aliases give it.
	for i := range trusted {
		want := trustedAlias(r.cfg, i)
		is := func(e keystore.Entry) bool { return e.Trusted && sameAlias(e.Alias, want) }
		at := i // as they were written
		if !is(trusted[i]) {
			at = slices.IndexFunc(trusted, is)
		}
		if at < 0 {
			return Bundle{}, r.fault(trustName, "has %s and no trusted certificate with the alias %q",
				describe(trusted), want)
		}
		b.Trusted = append(b.Trusted, trusted[at].Chain[0])
	}
	return b, nil
}

// byAlias lists the trusted certificates in the order of their aliases, of which those that are numbered are counted:
// x-10 comes after x-9.
func byAlias(entries []keystore.Entry) (certs []*x509.Certificate) {
	slices.SortFunc(entries, func(a, b keystore.Entry) int {
		return cmp.Or(cmp.Compare(len(a.Alias), len(b.Alias)), strings.Compare(a.Alias, b.Alias))
	})
	for _, e := range entries {
		if e.Trusted {
			certs = append(certs, e.Chain[0])
		}
	}
	return certs
}

// open opens a store, or a PEM file, which needs no password.
func (r reader) open(name, password string, format keystore.Format) ([]keystore.Entry, error) {
	data := r.files[name].data
	if format == keystore.PKCS12 {
		// Asked first: it needs no password.
		profile, err := keystore.ProfileOf(data)
		if err != nil {
			return nil, r.fault(name, "is unusable: %v", err)
		}
		if !r.anyForm && string(profile) != r.cfg.P12Profile {
			return nil, r.fault(name, "has the PKCS#12 profile %q, want %q", profile, r.cfg.P12Profile)
		}
	}
	entries, has, err := keystore.Decode(data, password)
	switch {
	case errors.Is(err, keystore.ErrPassword):
		return nil, r.fault(name, "does not open with the password beside it")
	case err != nil:
		return nil, r.fault(name, "is unusable: %v", err)
	case has != format:
		return nil, r.fault(name, "is a store of format %s, want %s", has, format)
	}
	return entries, nil
}

func describe(entries []keystore.Entry) string {
	keys := 0
	for _, e := range entries {
		if e.Key != nil {
			keys++
		}
	}
	return fmt.Sprintf("%d private keys and %d other certificates", keys, len(entries)-keys)
}

// sameAlias compares as a JVM does.
func sameAlias(a, b string) bool { return strings.EqualFold(a, b) }
