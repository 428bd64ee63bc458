package truststore

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/internal/pkcs12"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// The merged set is the union, whatever stores of whatever kind hold, and a second run finds it so.
func TestRun_mergedSetIsTheUnion(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 60 {
		p := newPlace(t)
		var names []string
		union := map[int]bool{}
		for i := range 2 + random.IntN(3) {
			kind := kinds[random.IntN(len(kinds))]
			spec := "=" + kind
			for j, n := range random.Perm(6)[:1+random.IntN(3)] {
				union[n] = true
				alias := []string{"ca", "ca-2", "other"}[j] // few names, so that many are taken
				spec += fmt.Sprintf(" %s=%d", alias, n)
			}
			names = append(names, fmt.Sprintf("%d-base.%s", i, kind))
			p.putAll(names[i], spec)
		}

		p.run(p.merge(names...))

		list := strings.Fields(p.contents(names[0]))
		merged := map[int]bool{}
		for _, word := range list {
			merged[int(word[len(word)-1]-'0')] = true
		}
		require.Equal(t, union, merged, "round %d", round)
		require.Len(t, list, len(union), "round %d", round)
		require.False(t, p.run(p.merge(names...)).Changed(), "round %d", round)
	}
}

func TestAliases_free_keepsWhatEveryFormatCanWrite(t *testing.T) {
	for sentence, row := range map[string]struct {
		wanted, want string
		format       keystore.Format
	}{
		"letters of any language stay":                          {"wurzel-ä-根", "wurzel-ä-根", keystore.JKS},
		"control characters, those beyond 16 bits, broken ones": {"a\nb\U0001f511\xff", "a_b__", keystore.JKS},
		"a long one is cut": {strings.Repeat("x", 70000),
			strings.Repeat("x", maxAlias), keystore.PKCS12},
	} {
		assert.Equal(t, row.want, newAliases(row.format, nil).free(row.wanted), sentence)
	}
}

// What was there keeps every byte: in JKS between header and digest, in PEM all of it, in a clear PKCS#12 each entry.
func TestRun_keepsEntriesByteForByte(t *testing.T) {
	text := string(made("pem 0"))
	more, crlf := string(made("pem 1")), strings.ReplaceAll(text, "\n", "\r\n")
	key, clear := string(made("jks ca=0 application=key")), string(made("clear debian:a.pem=0"))
	at := strings.Index(clear, string(root(0).Raw))
	for sentence, row := range map[string]struct{ before, want string }{ // which is in the result
		"JKS":                        {key, key[12 : len(key)-20]},
		"PKCS#12 without password":   {clear, clear[at-40 : len(clear)-4]},
		"PEM with text around":       {"# our CAs\n" + text + "# end\n", "# our CAs\n" + text + "# end\n" + more},
		"PEM without newline at end": {text[:len(text)-1], text + more},
		"PEM with CRLF":              {crlf, crlf + more},
	} {
		t.Run(sentence, func(t *testing.T) {
			p := newPlace(t, "base", row.before, "other.jks", "=jks b=1")
			p.run(p.merge("base", "other.jks"))
			assert.Contains(t, string(p.read("base")), row.want)
			assert.Equal(t, row.before == clear, needsNoPassword(p.read("base")) && row.before[0] == 0x30)
		})
	}
}

func TestRun_PKCS12KeepsKeysAndWhatBelongsToThem(t *testing.T) {
	for _, profile := range []pkcs12.Profile{pkcs12.ProfileModern, pkcs12.ProfileLegacy} {
		before := pkcs12.Contents{
			Keys: []pkcs12.Key{{Key: testPKI().key, FriendlyName: "application", LocalKeyID: []byte{1}}},
			Certificates: []pkcs12.Certificate{
				{Certificate: testPKI().chain[0], FriendlyName: "application", LocalKeyID: []byte{1}},
				{Certificate: testPKI().chain[1]},
				{Certificate: root(0), FriendlyName: "Trusted", Trusted: true},
				{Certificate: root(1), FriendlyName: "not trusted"},
			},
		}
		base := string(fixture.Must(pkcs12.Encode(before, password, profile)))
		p := newPlace(t, "base.p12", base, "other.pem", "=pem 2")

		p.run(p.merge("base.p12", "other.pem"))

		after := fixture.Must(pkcs12.Decode(p.read("base.p12"), password))
		before.Certificates = append(before.Certificates,
			pkcs12.Certificate{Certificate: root(2), FriendlyName: "pem-trusted-certificate-0", Trusted: true})
		assert.Equal(t, before, *after)
		assert.Equal(t, profile, fixture.Must(pkcs12.ProfileOf(p.read("base.p12"))))
	}
}

// None of its certificates has Java's mark; after the merge a JVM must see them all, not the new one only, and each
// under a name of its own.
func TestRun_storeOfOpenSSLIsMarkedAsTrustedWhenItIsMergedInto(t *testing.T) {
	p := newPlace(t, "base.p12", "=marks ca=0? ca=1?", "known.pem", "=pem 1", "new.pem", "=pem 2")
	assert.False(t, p.run(p.merge("base.p12", "known.pem")).Changed())

	p.run(p.merge("base.p12", "new.pem"))

	after := fixture.Must(pkcs12.Decode(p.read("base.p12"), password))
	for i, want := range []string{"ca", "ca-2", "pem-trusted-certificate-0"} {
		assert.Equal(t, pkcs12.Certificate{Certificate: root(i), FriendlyName: want, Trusted: true},
			after.Certificates[i])
	}
	assert.False(t, p.run(p.merge("base.p12", "known.pem", "new.pem")).Changed())
}

func TestStore_verify_refusesWhatLostSomething(t *testing.T) {
	p := newPlace(t, "base.jks", "=jks a=0 b=1 application=key")
	cfg := p.merge("base.jks")
	base := fixture.Must(newRun(cfg, nil).load(cfg.Truststores[0]))
	lost := func(n int) string { return "certificate " + digestOf(root(n).Raw) + " is not trusted" }
	for spec, want := range map[string]string{
		"jks a=0 b=1 application=key": lost(2), // which was to be added
		"jks a=0 c=2 application=key": lost(1),
		"jks a=0 b=1 c=2":             `entry "application" is gone`,
		"p12 a=0 b=1 c=2":             "format is PKCS12, want JKS",
		"jks2":                        "reading JKS store: holds neither a private key nor a certificate",
	} {
		assert.EqualError(t, base.verify(made(spec), entries("c=2")), "reading it back: "+want, spec)
	}
}
