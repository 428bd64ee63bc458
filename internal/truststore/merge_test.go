package truststore

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/internal/pkcs12"
)

// baseOf makes a store of each kind with the entries; PEM drops what it cannot hold.
var baseOf = map[string]func(t testing.TB, entries ...keystore.Entry) []byte{
	"base.jks": jks, "base.p12": p12, "cacerts": passwordless,
	"base.pem": func(t testing.TB, entries ...keystore.Entry) []byte {
		var out []byte
		for _, e := range entries {
			out = append(out, pemOf(numberOf(e.Chain[0]))...)
		}
		return out
	},
}

func TestRun_addsWhatIsMissingToEachKindOfStore(t *testing.T) {
	tests := []struct {
		name string
		want map[string]int
	}{
		{"base.jks", map[string]int{"mine": 0, "theirs": 1, "shared": 2, "pem-trusted-certificate-0": 3}},
		{"base.p12", map[string]int{"mine": 0, "Theirs": 1, "shared": 2, "pem-trusted-certificate-0": 3}},
		{"cacerts", map[string]int{"mine": 0, "Theirs": 1, "shared": 2, "pem-trusted-certificate-0": 3}},
		{"base.pem", map[string]int{"A": 0, "B": 1, "C": 2, "D": 3}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := newPlace(t)
			before := baseOf[test.name](t, trusted(t, "mine", 0, "shared", 2)...)
			p.write(test.name, before)
			p.write("other.p12", p12(t, trusted(t, "Theirs", 1, "under-another-name", 2)...))
			p.write("other.pem", pemOf(0, 3, 1))

			result := p.run(p.merge(test.name, "other.p12", "other.pem"))

			assert.Equal(t, test.want, contents(t, p.read(test.name)))
			assert.Equal(t, []Replaced{{Path: p.path(test.name), Backup: p.path(test.name + ".bak")}}, result.Replaced)
			assert.Len(t, result.Added, 2)
			assert.Equal(t, before, p.read(test.name+".bak"))
			format, err := keystore.Detect(before)
			require.NoError(t, err)
			after, err := keystore.Detect(p.read(test.name))
			require.NoError(t, err)
			assert.Equal(t, format, after)
		})
	}
}

func TestRun_resultAndLogSayWhatChanged(t *testing.T) {
	p := newPlace(t)
	p.write("base.jks", jks(t, trusted(t, "ca", 0)...))
	p.write("other.p12", p12(t, trusted(t, "ca", 1)...))
	var text strings.Builder
	log := slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))

	result, err := Run(p.merge("base.jks", "other.p12"), log)

	require.NoError(t, err)
	fingerprint := digestOf(root(1).Raw)
	assert.True(t, result.Changed())
	assert.Equal(t, []Added{{Alias: "ca-2", Subject: "CN=B Root CA,O=Throwaway", SHA256: fingerprint, From: p.path("other.p12")}}, result.Added)
	assert.Equal(t, fmt.Sprintf(`level=INFO msg="certificate added to truststore" truststore=%s alias=ca-2 subject="CN=B Root CA,O=Throwaway" sha256=%s from=%s
level=INFO msg="file replaced" path=%s backup=%s
`, p.path("base.jks"), fingerprint, p.path("other.p12"), p.path("base.jks"), p.path("base.jks.bak")), text.String())

	text.Reset()
	result, err = Run(p.merge("base.jks", "other.p12"), log)
	require.NoError(t, err)
	assert.False(t, result.Changed())
	assert.Empty(t, result.Added)
	assert.Empty(t, text.String())
}

func TestRun_aliasThatIsTakenGetsANumber(t *testing.T) {
	p := newPlace(t)
	p.write("base.jks", jks(t, trusted(t, "ca", 0, "ca-2", 1, "pem-trusted-certificate-0", 2)...))
	p.write("other.p12", p12(t, trusted(t, "CA", 3)...))
	p.write("third.jks", jks(t, trusted(t, "ca", 4)...))
	p.write("fourth.pem", pemOf(5))

	p.run(p.merge("base.jks", "other.p12", "third.jks", "fourth.pem"))

	assert.Equal(t, map[string]int{"ca": 0, "ca-2": 1, "pem-trusted-certificate-0": 2, "ca-3": 3, "ca-4": 4, "pem-trusted-certificate-1": 5},
		contents(t, p.read("base.jks")))
}

func TestAliases_free_keepsWhatEveryFormatCanWrite(t *testing.T) {
	tests := []struct {
		name, wanted, want string
		format             keystore.Format
	}{
		{"JKS is in lower case", "Root CA", "root ca", keystore.JKS},
		{"PKCS#12 keeps the case", "Root CA", "Root CA", keystore.PKCS12},
		{"letters of any language stay", "wurzel-ä-根", "wurzel-ä-根", keystore.JKS},
		{"a control character, one beyond 16 bits and a broken one are replaced", "a\nb\U0001f511\xff", "a_b__", keystore.JKS},
		{"a long one is cut", strings.Repeat("x", 70000), strings.Repeat("x", maxAlias), keystore.PKCS12},
		{"PEM has none", "ca", "", keystore.PEM},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			assert.Equal(t, test.want, newAliases(test.format, nil).free(test.wanted))
		})
	}
}

func TestRun_JKSKeepsEveryEntryByteForByte(t *testing.T) {
	p := newPlace(t)
	before := jks(t, append(trusted(t, "ca", 0), keyEntry("application"))...)
	p.write("base.jks", before)
	p.write("other.pem", pemOf(1))

	p.run(p.merge("base.jks", "other.pem"))

	after := p.read("base.jks")
	assert.Equal(t, uint32(3), binary.BigEndian.Uint32(after[8:]))
	assert.Equal(t, before[12:len(before)-20], after[12:len(before)-20])
}

func TestRun_JKSOfVersion1StaysOne(t *testing.T) {
	// Version 1 names no type before a certificate.
	p := newPlace(t)
	empty := jks(t, trusted(t, "x", 0)...)[:12]
	binary.BigEndian.PutUint32(empty[4:], 1)
	binary.BigEndian.PutUint32(empty[8:], 0)
	base, err := keystore.Append(append(empty, make([]byte, 20)...), password, trusted(t, "old", 0), nil, fixedTime)
	require.NoError(t, err)
	p.write("base.jks", base)
	p.write("other.pem", pemOf(1))

	p.run(p.merge("base.jks", "other.pem"))

	assert.Equal(t, uint32(1), binary.BigEndian.Uint32(p.read("base.jks")[4:]))
	assert.Equal(t, map[string]int{"old": 0, "pem-trusted-certificate-0": 1}, contents(t, p.read("base.jks")))
}

func TestRun_PKCS12KeepsKeysAndWhatBelongsToThem(t *testing.T) {
	for _, profile := range []pkcs12.Profile{pkcs12.ProfileModern, pkcs12.ProfileLegacy} {
		t.Run(string(profile), func(t *testing.T) {
			p := newPlace(t)
			before := pkcs12.Contents{
				Keys: []pkcs12.Key{{Key: testPKI().key, FriendlyName: "application", LocalKeyID: []byte{1}}},
				Certificates: []pkcs12.Certificate{
					{Certificate: testPKI().chain[0], FriendlyName: "application", LocalKeyID: []byte{1}},
					{Certificate: testPKI().chain[1]},
					{Certificate: root(0), FriendlyName: "Trusted", Trusted: true},
					{Certificate: root(1), FriendlyName: "not trusted"},
				},
			}
			data, err := pkcs12.Encode(before, password, profile)
			require.NoError(t, err)
			p.write("base.p12", data)
			p.write("other.pem", pemOf(2))

			p.run(p.merge("base.p12", "other.pem"))

			after, err := pkcs12.Decode(p.read("base.p12"), password)
			require.NoError(t, err)
			before.Certificates = append(before.Certificates,
				pkcs12.Certificate{Certificate: root(2), FriendlyName: "pem-trusted-certificate-0", Trusted: true})
			assert.Equal(t, before, *after)
			written, err := pkcs12.ProfileOf(p.read("base.p12"))
			require.NoError(t, err)
			assert.Equal(t, profile, written)
		})
	}
}

func TestRun_passwordlessPKCS12StaysOneAndKeepsItsBytes(t *testing.T) {
	p := newPlace(t)
	before := passwordless(t, trusted(t, "debian:a.pem", 0)...)
	p.write("cacerts", before)
	p.write("other.pem", pemOf(1))
	cfg := p.merge("cacerts", "other.pem")
	cfg.Truststores[0].PasswordPath = ""

	p.run(cfg)

	after := p.read("cacerts")
	assert.True(t, needsNoPassword(t, after))
	bag := before[bytes.Index(before, derCertBag)-4:]
	assert.Contains(t, string(after), string(bag))
	assert.Equal(t, map[string]int{"debian:a.pem": 0, "pem-trusted-certificate-0": 1}, contents(t, after))
}

// derCertBag is the identifier that a bag with a certificate begins with.
var derCertBag = mustMarshal([]int{1, 2, 840, 113549, 1, 12, 10, 1, 3})

func mustMarshal(oid asn1.ObjectIdentifier) []byte {
	der, err := asn1.Marshal(oid)
	if err != nil {
		panic(err)
	}
	return der
}

func TestRun_storeOfOpenSSLIsMarkedAsTrustedWhenItIsMergedInto(t *testing.T) {
	// None of its certificates has Java's mark; after the merge a JVM must see them all, not the new one only.
	unmarked := pkcs12.Contents{Certificates: []pkcs12.Certificate{{Certificate: root(0), FriendlyName: "a"}, {Certificate: root(1), FriendlyName: "b"}}}
	protected, err := pkcs12.Encode(unmarked, password, pkcs12.ProfileModern)
	require.NoError(t, err)
	clear := bytes.ReplaceAll(passwordless(t, trusted(t, "a", 0, "b", 1)...), mustMarshal([]int{2, 16, 840, 1, 113894, 746875, 1, 1}), mustMarshal([]int{2, 16, 840, 1, 113894, 746875, 1, 2}))
	for name, data := range map[string][]byte{"protected": protected, "in the clear": clear} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			p.write("base.p12", data)
			p.write("known.pem", pemOf(1))
			p.write("new.pem", pemOf(2))

			assert.False(t, p.run(p.merge("base.p12", "known.pem")).Changed())
			p.run(p.merge("base.p12", "new.pem"))

			after := p.read("base.p12")
			entries, _, err := keystore.Decode(after, password)
			require.NoError(t, err)
			for _, e := range entries {
				assert.True(t, e.Trusted, e.Alias)
			}
			assert.Equal(t, map[string]int{"a": 0, "b": 1, "pem-trusted-certificate-0": 2}, contents(t, after))
			assert.False(t, p.run(p.merge("base.p12", "known.pem", "new.pem")).Changed())
		})
	}
}

func TestRun_PEMKeepsWhatIsThereByteForByte(t *testing.T) {
	for name, before := range map[string]string{
		"with text around":       "# our own CAs\n" + string(pemOf(0)) + "# end\n",
		"without newline at end": strings.TrimSuffix(string(pemOf(0)), "\n"),
		"with CRLF":              strings.ReplaceAll(string(pemOf(0)), "\n", "\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			p.write("base.pem", []byte(before))
			p.write("other.jks", jks(t, trusted(t, "b", 1)...))

			p.run(p.merge("base.pem", "other.jks"))

			newline := "\n"
			if strings.HasSuffix(before, "\n") {
				newline = ""
			}
			assert.Equal(t, before+newline+string(pemOf(1)), string(p.read("base.pem")))
		})
	}
}

func TestRun_formatIsThatOfTheContent(t *testing.T) {
	p := newPlace(t)
	p.write("base.jks", p12(t, trusted(t, "a", 0)...))
	p.write("other.p12", pemOf(1))
	p.write("third.pem.jks", jks(t, trusted(t, "c", 2)...))

	p.run(p.merge("base.jks", "other.p12", "third.pem.jks"))

	assert.Equal(t, map[string]int{"a": 0, "pem-trusted-certificate-0": 1, "c": 2}, contents(t, p.read("base.jks")))
}

func TestRun_takesOnlyTrustedCertificatesOfJavaStores(t *testing.T) {
	// The key's own chain is for showing to others, not for trusting them.
	p := newPlace(t)
	p.write("base.pem", pemOf(0))
	p.write("other.jks", jks(t, append(trusted(t, "b", 1), keyEntry("application"))...))
	p.write("other.p12", p12(t, append(trusted(t, "c", 2), keyEntry("application"))...))

	p.run(p.merge("base.pem", "other.jks", "other.p12"))

	assert.Equal(t, map[string]int{"A": 0, "B": 1, "C": 2}, contents(t, p.read("base.pem")))
}

func TestRun_newlineAfterThePasswordIsDropped(t *testing.T) {
	for _, newline := range []string{"\n", "\r\n"} {
		p := newPlace(t)
		p.write("changeit.pass", []byte(password+newline))
		p.write("base.jks", jks(t, trusted(t, "a", 0)...))
		p.write("other.pem", pemOf(1))

		assert.True(t, p.run(p.merge("base.jks", "other.pem")).Changed())
	}
}

func TestStore_verify_refusesWhatLostSomething(t *testing.T) {
	p := newPlace(t)
	p.write("base.jks", jks(t, append(trusted(t, "a", 0, "b", 1), keyEntry("application"))...))
	cfg := p.merge("base.jks")
	base, err := newRun(cfg, nil).load(cfg.Truststores[0])
	require.NoError(t, err)
	tests := []struct {
		name string
		data []byte
		want string
	}{
		{"an added certificate", jks(t, append(trusted(t, "a", 0, "b", 1), keyEntry("application"))...),
			"reading it back: certificate " + digestOf(root(2).Raw) + " is not trusted"},
		{"a certificate", jks(t, append(trusted(t, "a", 0, "c", 2), keyEntry("application"))...),
			"reading it back: certificate " + digestOf(root(1).Raw) + " is not trusted"},
		{"a key", jks(t, trusted(t, "a", 0, "b", 1, "c", 2)...), `reading it back: entry "application" is gone`},
		{"its format", p12(t, trusted(t, "a", 0, "b", 1, "c", 2)...), "reading it back: format is PKCS12, want JKS"},
		{"everything", emptyJKS(t), "reading it back: reading JKS store: holds neither a private key nor a certificate"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			assert.EqualError(t, base.verify(test.data, trusted(t, "c", 2)), test.want)
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
			var entries []keystore.Entry
			for _, n := range random.Perm(len(testPKI().roots))[:1+random.IntN(3)] {
				union[n] = true
				// Few names, so that many are taken.
				alias := fmt.Sprintf("ca-%d", random.IntN(2))
				if slices.ContainsFunc(entries, func(e keystore.Entry) bool { return e.Alias == alias }) {
					alias += "-2"
				}
				if slices.ContainsFunc(entries, func(e keystore.Entry) bool { return e.Alias == alias }) {
					alias = fmt.Sprint("other-", n)
				}
				entries = append(entries, keystore.Entry{Alias: alias, Chain: []*x509.Certificate{root(n)}, Trusted: true})
			}
			name := fmt.Sprintf("%d-%s", i, kind)
			p.write(name, baseOf[kind](t, entries...))
			names = append(names, name)
		}

		p.run(p.merge(names...))

		merged := map[int]bool{}
		list := contents(t, p.read(names[0]))
		for _, n := range list {
			merged[n] = true
		}
		require.Equal(t, union, merged, "round %d", round)
		require.Len(t, list, len(union), "round %d", round)
		require.False(t, p.run(p.merge(names...)).Changed(), "round %d", round)
	}
}

func TestRun_noPasswordFile_triesThatOfAJDK(t *testing.T) {
	for format, data := range map[string][]byte{"JKS": jks(t, trusted(t, "a", 0)...), "PKCS#12": p12(t, trusted(t, "a", 0)...), "PKCS#12 without password": passwordless(t, trusted(t, "a", 0)...)} {
		t.Run(format, func(t *testing.T) {
			p := newPlace(t)
			p.write("cacerts", data)
			p.write("other.jks", jks(t, trusted(t, "b", 1)...))
			cfg := p.merge("cacerts", "other.jks")
			cfg.Truststores[0].PasswordPath = ""
			var text strings.Builder

			_, err := Run(cfg, slog.New(slog.NewTextHandler(&text, nil)))

			require.NoError(t, err)
			assert.Equal(t, map[string]int{"a": 0, "b": 1}, contents(t, p.read("cacerts")))
			said := strings.Count(text.String(), `msg="truststore opened with the password of a JDK's cacerts, as no file with another is named" truststore=`+p.path("cacerts"))
			assert.Equal(t, format != "PKCS#12 without password", said == 1, text.String())
			assert.NotContains(t, text.String(), password)
		})
	}
}
