package truststore

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/internal/pkcs12"
)

// Each row merges stores, the first of which is changed. Certificates are the same when their DER is; those of a key's
// chain are for showing to others, not for trusting them; aliases are compared without case.
func TestRun_mergesWhatIsMissing(t *testing.T) {
	type stores = []any // names and contents
	partly := pkcs12.Contents{Certificates: []pkcs12.Certificate{
		{Certificate: root(3), FriendlyName: "d", Trusted: true}, {Certificate: root(4), FriendlyName: "not trusted"}}}
	for sentence, row := range map[string]struct {
		stores stores
		want   map[string]int
	}{
		"into JKS, in lower case": {stores{"base.jks", jks(trusted("mine", 0, "shared", 2)...),
			"other.p12", p12(trusted("Theirs", 1, "under-another-name", 2)...), "other.pem", pemOf(0, 3, 1)},
			map[string]int{"mine": 0, "theirs": 1, "shared": 2, "pem-trusted-certificate-0": 3}},
		"into PKCS#12, with the case kept": {stores{"base.p12", p12(trusted("mine", 0)...),
			"other.jks", jks(trusted("b", 1)...), "other.p12", p12(trusted("Theirs", 2)...)},
			map[string]int{"mine": 0, "b": 1, "Theirs": 2}},
		"into a PKCS#12 without password": {stores{"cacerts", passwordless(trusted("mine", 0)...),
			"other.p12", p12(trusted("Theirs", 1)...)}, map[string]int{"mine": 0, "Theirs": 1}},
		"into PEM, which has no aliases": {stores{"base.pem", pemOf(0, 2),
			"other.p12", p12(trusted("Theirs", 1, "x", 2)...)}, map[string]int{"A": 0, "B": 1, "C": 2}},
		"an alias that is taken gets a number": {stores{
			"base.jks", jks(trusted("ca", 0, "ca-2", 1, "pem-trusted-certificate-0", 2)...),
			"other.p12", p12(trusted("CA", 3)...), "third.jks", jks(trusted("ca", 4)...), "fourth.pem", pemOf(5)},
			map[string]int{"ca": 0, "ca-2": 1, "pem-trusted-certificate-0": 2, "ca-3": 3, "ca-4": 4,
				"pem-trusted-certificate-1": 5}},
		"the format is that of the content": {stores{"base.jks", p12(trusted("a", 0)...), "other.p12", pemOf(1),
			"third.pem.jks", jks(trusted("c", 2)...)}, map[string]int{"a": 0, "pem-trusted-certificate-0": 1, "c": 2}},
		"only trusted certificates": {stores{"base.pem", pemOf(0),
			"other.jks", jks(keyAnd("application", trusted("b", 1)...)...),
			"other.p12", p12(keyAnd("application", trusted("c", 2)...)...),
			"partly.p12", must(pkcs12.Encode(partly, password, pkcs12.ProfileModern))},
			map[string]int{"A": 0, "B": 1, "C": 2, "D": 3}},
		"a keystore gives nothing": {stores{"base.jks", jks(trusted("a", 0)...),
			"keystore.p12", p12(keyAnd("application")...), "other.pem", pemOf(1)},
			map[string]int{"a": 0, "pem-trusted-certificate-0": 1}},
		"a keystore is merged into": {stores{"keystore.p12", p12(keyAnd("application")...),
			"other.jks", jks(trusted("a", 0)...)}, map[string]int{"a": 0}},
		"a JKS of version 1 stays one": {stores{
			"base.jks", must(keystore.Append(emptyJKS(1), password, trusted("old", 0), nil, fixedTime)),
			"other.pem", pemOf(1)}, map[string]int{"old": 0, "pem-trusted-certificate-0": 1}},
		"a newline after the password is dropped": {stores{"changeit.pass", "changeit\n",
			"base.jks", jks(trusted("a", 0)...), "other.pem", pemOf(1)},
			map[string]int{"a": 0, "pem-trusted-certificate-0": 1}},
	} {
		t.Run(sentence, func(t *testing.T) {
			p := newPlace(t, row.stores...)
			var names []string
			for i := 0; i < len(row.stores); i += 2 {
				if name := row.stores[i].(string); name != "changeit.pass" {
					names = append(names, name)
				}
			}
			before := p.read(names[0])

			result := p.run(p.merge(names...))

			assert.Equal(t, row.want, p.contents(names[0]))
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
	kinds := []string{"base.jks", "base.p12", "base.pem", "cacerts"}
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 60 {
		p := newPlace(t)
		var names []string
		union := map[int]bool{}
		for i := range 2 + random.IntN(3) {
			kind := kinds[random.IntN(len(kinds))]
			var entries []any
			for j, n := range random.Perm(6)[:1+random.IntN(3)] {
				union[n] = true
				alias := []string{"ca", "ca-2", "other"}[j] // few names, so that many are taken
				entries = append(entries, alias, n)
			}
			name := fmt.Sprintf("%d-%s", i, kind)
			p.write(name, baseOf[kind](trusted(entries...)...))
			names = append(names, name)
		}

		p.run(p.merge(names...))

		merged := map[int]bool{}
		list := p.contents(names[0])
		for _, n := range list {
			merged[n] = true
		}
		require.Equal(t, union, merged, "round %d", round)
		require.Len(t, list, len(union), "round %d", round)
		require.False(t, p.run(p.merge(names...)).Changed(), "round %d", round)
	}
}

func TestRun_resultAndLogSayWhatChanged(t *testing.T) {
	p := newPlace(t, "base.jks", jks(trusted("ca", 0)...), "other.p12", p12(trusted("ca", 1)...))

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
		pemOf(1), pemOf(2)[:200])
	p := newPlace(t, "base.jks", jks(trusted("a", 0)...), "other.pem", damaged, "keystore.p12", p12(keyAnd("x")...))

	_, log := p.runLogged(p.merge("base.jks", "other.pem", "keystore.p12"))

	assert.Equal(t, map[string]int{"a": 0, "pem-trusted-certificate-0": 1}, p.contents("base.jks"))
	for _, want := range []string{"at line 1 cannot be read", "it has no END line: the file was cut short",
		"has no trusted certificate, only private keys: is it a keystore?"} {
		assert.Regexp(t, `level=WARN msg="post-processing continues with a warning" error=.*`+want, log)
	}
}

func TestRun_noPasswordFile_triesThatOfAJDK(t *testing.T) {
	for _, kind := range []string{"base.jks", "base.p12", "cacerts"} {
		p := newPlace(t, "store", baseOf[kind](trusted("a", 0)...), "other.jks", jks(trusted("b", 1)...))
		cfg := p.merge("store", "other.jks")
		cfg.Truststores[0].PasswordPath = ""

		_, log := p.runLogged(cfg)

		assert.Equal(t, map[string]int{"a": 0, "b": 1}, p.contents("store"))
		said := strings.Count(log, `msg="opened a truststore with the password of a JDK's cacerts`)
		assert.Equal(t, kind != "cacerts", said == 1, log)
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
	text := string(pemOf(0))
	key := jks(keyAnd("application", trusted("ca", 0)...)...)
	clear := passwordless(trusted("debian:a.pem", 0)...)
	for sentence, row := range map[string]struct {
		before []byte
		want   string // is in the result
	}{
		"JKS":                      {key, string(key[12 : len(key)-20])},
		"PKCS#12 without password": {clear, string(clear[bytes.Index(clear, root(0).Raw)-40 : len(clear)-4])},
		"PEM with text around": {[]byte("# our CAs\n" + text + "# end\n"),
			"# our CAs\n" + text + "# end\n" + string(pemOf(1))},
		"PEM without newline at end": {[]byte(text[:len(text)-1]), text + string(pemOf(1))},
		"PEM with CRLF": {[]byte(strings.ReplaceAll(text, "\n", "\r\n")),
			strings.ReplaceAll(text, "\n", "\r\n") + string(pemOf(1))},
	} {
		t.Run(sentence, func(t *testing.T) {
			p := newPlace(t, "base", row.before, "other.jks", jks(trusted("b", 1)...))
			p.run(p.merge("base", "other.jks"))
			assert.Contains(t, string(p.read("base")), row.want)
			assert.Equal(t, strings.HasPrefix(sentence, "PKCS#12"),
				needsNoPassword(p.read("base")) && row.before[0] == 0x30)
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
		p := newPlace(t, "base.p12", must(pkcs12.Encode(before, password, profile)), "other.pem", pemOf(2))

		p.run(p.merge("base.p12", "other.pem"))

		after, err := pkcs12.Decode(p.read("base.p12"), password)
		require.NoError(t, err)
		before.Certificates = append(before.Certificates,
			pkcs12.Certificate{Certificate: root(2), FriendlyName: "pem-trusted-certificate-0", Trusted: true})
		assert.Equal(t, before, *after)
		written, err := pkcs12.ProfileOf(p.read("base.p12"))
		require.NoError(t, err)
		assert.Equal(t, profile, written)
	}
}

// None of its certificates has Java's mark; after the merge a JVM must see them all, not the new one only, and each
// under a name of its own.
func TestRun_storeOfOpenSSLIsMarkedAsTrustedWhenItIsMergedInto(t *testing.T) {
	unmarked := pkcs12.Contents{Certificates: []pkcs12.Certificate{
		{Certificate: root(0), FriendlyName: "ca"}, {Certificate: root(1), FriendlyName: "ca"}}}
	p := newPlace(t, "base.p12", must(pkcs12.Encode(unmarked, password, pkcs12.ProfileModern)),
		"known.pem", pemOf(1), "new.pem", pemOf(2))
	assert.False(t, p.run(p.merge("base.p12", "known.pem")).Changed())

	p.run(p.merge("base.p12", "new.pem"))

	after, err := pkcs12.Decode(p.read("base.p12"), password)
	require.NoError(t, err)
	for i, want := range []string{"ca", "ca-2", "pem-trusted-certificate-0"} {
		assert.Equal(t, pkcs12.Certificate{Certificate: root(i), FriendlyName: want, Trusted: true},
			after.Certificates[i])
	}
	assert.False(t, p.run(p.merge("base.p12", "known.pem", "new.pem")).Changed())
}

func TestStore_verify_refusesWhatLostSomething(t *testing.T) {
	p := newPlace(t, "base.jks", jks(keyAnd("application", trusted("a", 0, "b", 1)...)...))
	cfg := p.merge("base.jks")
	base, err := newRun(cfg, nil).load(cfg.Truststores[0])
	require.NoError(t, err)
	lost := func(n int) string { return "certificate " + digestOf(root(n).Raw) + " is not trusted" }
	for sentence, row := range map[string]struct {
		data []byte
		want string
	}{
		"an added certificate": {jks(keyAnd("application", trusted("a", 0, "b", 1)...)...), lost(2)},
		"a certificate":        {jks(keyAnd("application", trusted("a", 0, "c", 2)...)...), lost(1)},
		"a key":                {jks(trusted("a", 0, "b", 1, "c", 2)...), `entry "application" is gone`},
		"its format":           {p12(trusted("a", 0, "b", 1, "c", 2)...), "format is PKCS12, want JKS"},
		"everything":           {emptyJKS(2), "reading JKS store: holds neither a private key nor a certificate"},
	} {
		assert.EqualError(t, base.verify(row.data, trusted("c", 2)), "reading it back: "+row.want, sentence)
	}
}
