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
	"github.com/certfetcher/certfetcher/test/golden"
)

func TestRun_mergesWhatIsMissing(t *testing.T) {
	for sentence, text := range golden.Read(t, "merges.txt") {
		t.Run(sentence, func(t *testing.T) {
			p := newPlace(t)
			commands, want := script(text)
			p.follow(nil, commands)
			var names []string
			for _, command := range commands {
				if name := strings.Fields(command)[1]; name != "changeit.pass" {
					names = append(names, name)
				}
			}
			before := p.read(names[0])

			result := p.run(p.merge(names...))

			assert.Equal(t, want, p.contents(names[0]))
			assert.Equal(t, []Replaced{{p.path(names[0]), p.path(names[0] + ".bak")}}, result.Replaced)
			assert.Equal(t, before, p.read(names[0]+".bak"))
			head := map[bool]int{true: 8, false: 2}[before[0] == 0xfe]
			assert.Equal(t, before[:head], p.read(names[0])[:head], "the format, and in JKS the version, has changed")
			assert.False(t, p.run(p.merge(names...)).Changed())
		})
	}
}

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

func TestRun_resultAndLogSayWhatChanged(t *testing.T) {
	p := newPlace(t, "base.jks", "=jks ca=0", "other.p12", "=p12 ca=1")

	result, log := p.runLogged(p.merge("base.jks", "other.p12"))

	fingerprint := digestOf(root(1).Raw)
	assert.Equal(t, []Added{{"ca-2", "CN=B Root CA,O=Throwaway", fingerprint, p.path("other.p12")}}, result.Added)
	assert.Equal(t,
		fmt.Sprintf(`level=INFO msg="certificate added to truststore" truststore=%[1]s/base.jks alias=ca-2 `+
			`subject="CN=B Root CA,O=Throwaway" sha256=%[2]s from=%[1]s/other.p12
level=INFO msg="file replaced" path=%[1]s/base.jks backup=%[1]s/base.jks.bak
`, p.dir, fingerprint), log)

	result, log = p.runLogged(p.merge("base.jks", "other.p12"))
	assert.Equal(t, Result{}, result)
	assert.Empty(t, log)
}

func TestRun_warnings(t *testing.T) {
	damaged := fmt.Sprintf("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n%s%s",
		made("pem 1"), made("pem 2")[:200])
	p := newPlace(t, "base.jks", "=jks a=0", "other.pem", damaged, "keystore.p12", "=p12 x=key")

	_, log := p.runLogged(p.merge("base.jks", "other.pem", "keystore.p12"))

	assert.Equal(t, "a=0 pem-trusted-certificate-0=1", p.contents("base.jks"))
	for _, want := range []string{"at line 1 cannot be read", "it has no END line: the file was cut short",
		"has no trusted certificate, only private keys: is it a keystore?"} {
		assert.Regexp(t, `level=WARN msg="post-processing continues with a warning" error=.*`+want, log)
	}
}

func TestRun_noPasswordFile_triesThatOfAJDK(t *testing.T) {
	for _, kind := range []string{"jks", "p12", "clear"} {
		p := newPlace(t, "store", "="+kind+" a=0", "other.jks", "=jks b=1")
		cfg := p.merge("store", "other.jks")
		cfg.Truststores[0].PasswordPath = ""

		_, log := p.runLogged(cfg)

		assert.Equal(t, "a=0 b=1", p.contents("store"))
		said := strings.Count(log, `msg="opened a truststore with the password of a JDK's cacerts`)
		assert.Equal(t, kind != "clear", said == 1, log)
		assert.NotContains(t, log, password)
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
