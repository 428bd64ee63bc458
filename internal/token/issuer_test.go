package token

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
)

const ownToken = "the.own.token"

// cluster is an issuer with a server, and a verifier that trusts it.
type cluster struct {
	*fixture.Issuer
	settings Settings
	log      fixture.Buffer
	readings chan error // what comes of each reading
}

func newCluster(t testing.TB) *cluster {
	c := &cluster{Issuer: fixture.NewIssuer("", "ES256"), readings: make(chan error, 100)}
	ca := fixture.Must(fixture.NewCA("Cluster"))
	c.Serve(t, ca)
	dir := t.TempDir()
	c.settings = Settings{Issuer: c.URL, Audience: testAudience, IssuerCA: filepath.Join(dir, "ca.crt"),
		OwnTokenPath: filepath.Join(dir, "token"), Log: slog.New(slog.NewTextHandler(&c.log, nil)),
		Read: func(_ int, _ string, err error) { c.readings <- err }}
	require.NoError(t, os.WriteFile(c.settings.IssuerCA, fixture.CertificatesPEM(ca.Root), 0o600))
	require.NoError(t, os.WriteFile(c.settings.OwnTokenPath, []byte(ownToken+"\n"), 0o600))
	return c
}

func (c *cluster) verifier(t testing.TB) *Verifier {
	v, err := New(c.settings)
	require.NoError(t, err)
	return v
}

// reading returns what comes of the next reading.
func (c *cluster) reading(t *testing.T) error {
	select {
	case err := <-c.readings:
		return err
	case <-time.After(30 * time.Second):
		require.Fail(t, "the keys are not read")
		return nil
	}
}

func (c *cluster) token() string { return c.Token("payments", "web", testAudience) }

// reasonOf is "" for a token that is accepted.
func reasonOf(v *Verifier, token string) Reason {
	_, err := v.Verify(token)
	if err == nil {
		return ""
	}
	return err.(*Error).Reason
}

// answers has a server answer so at some paths.
type answers struct {
	server *fixture.Issuer
	of     map[string]http.HandlerFunc
}

func (a answers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if answer, found := a.of[r.URL.Path]; found {
		answer(w, r)
		return
	}
	switch r.URL.Path {
	case fixture.JWKSPath:
		_, _ = w.Write(a.server.JWKS())
	case fixture.DiscoveryPath:
		_, _ = w.Write(a.server.Discovery())
	default:
		http.NotFound(w, r)
	}
}

// Each section of testdata/discovery.txt has an issuer at which the keys are asked for, with the
// service's own token, and who is asked then.
func TestDiscovery_asTheIssuersSay(t *testing.T) {
	golden.Play(t, "discovery.txt", func(t *testing.T, _, commands string) string {
		c := newCluster(t)
		elsewhere := newCluster(t)
		elsewhere.SetKeys(c.Keys()...)
		require.NoError(t, os.WriteFile(c.settings.IssuerCA, append(
			fixture.Must(os.ReadFile(c.settings.IssuerCA)), fixture.Must(os.ReadFile(elsewhere.settings.IssuerCA))...),
			0o600))
		issuerURL, elsewhereURL := c.URL, elsewhere.URL
		elsewherePort := elsewhereURL[strings.LastIndex(elsewhereURL, ":")+1:]
		fill := strings.NewReplacer("ISSUER", issuerURL, "ELSEWHERE", elsewhereURL, "ELSEPORT", elsewherePort)
		at := map[string]answers{"issuer": {c.Issuer, map[string]http.HandlerFunc{}},
			"elsewhere": {elsewhere.Issuer, map[string]http.HandlerFunc{}}}
		c.Answer(at["issuer"].ServeHTTP)
		elsewhere.Answer(at["elsewhere"].ServeHTTP)
		clusterCA := ""
		for command := range strings.Lines(commands) {
			words := strings.SplitN(strings.TrimSuffix(strings.TrimPrefix(command, "> "), "\n"), " ", 5)
			switch strings.Join(words[:2], " ") {
			case "no own":
				require.NoError(t, os.Remove(c.settings.OwnTokenPath))
			case "own token":
				require.NoError(t, os.WriteFile(c.settings.OwnTokenPath, []byte("a\nb"), 0o600))
			case "issuer has": // the path PATH
				path := words[4]
				c.settings.Issuer += path
				c.URL += path
				document := strings.TrimSuffix(path, "/") + fixture.DiscoveryPath
				at["issuer"].of[document] = func(w http.ResponseWriter, _ *http.Request) {
					_, _ = w.Write(bytes.Replace(c.Discovery(), []byte(c.URL+fixture.JWKSPath),
						[]byte(issuerURL+fixture.JWKSPath), 1))
				}
			case "document issuer", "document jwks_uri":
				document := map[string]any{}
				require.NoError(t, json.Unmarshal(c.Discovery(), &document))
				set(t, document, words[1], fill.Replace(strings.Join(words[2:], " ")))
				at["issuer"].of[fixture.DiscoveryPath] = func(w http.ResponseWriter, _ *http.Request) {
					_ = json.NewEncoder(w).Encode(document)
				}
			case "issuer redirects":
				at["issuer"].of[words[2]] = func(w http.ResponseWriter, r *http.Request) {
					http.Redirect(w, r, elsewhereURL+r.URL.Path, http.StatusFound)
				}
			case "issuer answers", "elsewhere answers":
				at[words[0]].of[words[2]] = func(w http.ResponseWriter, _ *http.Request) {
					w.WriteHeader(fixture.Must(strconv.Atoi(words[3])))
					switch {
					case len(words) < 5:
					case words[4] == "without end":
						for err := error(nil); err == nil; {
							_, err = w.Write(bytes.Repeat([]byte(" "), 1<<16))
						}
					default:
						_, _ = w.Write([]byte(fill.Replace(words[4])))
					}
				}
			case "trust another":
				require.NoError(t, os.WriteFile(c.settings.IssuerCA,
					fixture.CertificatesPEM(fixture.Must(fixture.NewCA("Other")).Root), 0o600))
			case "trust the":
				if words[2] == "CA" {
					clusterCA = c.settings.IssuerCA
				}
				c.settings.IssuerCA = ""
			case "trust a":
				require.NoError(t, os.Remove(c.settings.IssuerCA))
			case "trust an":
				require.NoError(t, os.WriteFile(c.settings.IssuerCA, nil, 0o600))
			default:
				t.Fatalf("no command %q", command)
			}
		}
		v := c.verifier(t)
		v.clusterCA = clusterCA
		text := "keys read: 1\n"
		if err := v.Reload("start"); err != nil {
			_, reason, _ := strings.Cut(err.Error(), "so no token is accepted: ")
			text = "error: " + reason + "\n"
			assert.Zero(t, v.Keys())
		} else {
			assert.Empty(t, reasonOf(v, c.token()))
		}
		for _, asked := range c.Asked() {
			text += "the issuer was asked for " + asked + "\n"
		}
		for _, asked := range elsewhere.Asked() {
			text += "elsewhere was asked for " + asked + "\n"
			assert.NotContains(t, asked, ownToken)
		}
		assert.NotContains(t, c.log.String(), ownToken)
		text = strings.NewReplacer(issuerURL, "ISSUER", elsewhereURL, "ELSEWHERE",
			filepath.Dir(c.settings.OwnTokenPath), "DIR").Replace(text)
		return systems.ReplaceAllString(text, "${1}…$2")
	})
}

// What is not ours to word: net/http and the system say it.
var systems = regexp.MustCompile(`(failed to verify certificate: ).*(: set)`)

func TestRun_keyIsReplaced_tokensOfTheNewOneAreAcceptedSoon(t *testing.T) {
	for _, row := range []struct {
		from string
		file bool
	}{{"discovery", false}, {"a file", true}} {
		t.Run("keys from "+row.from, func(t *testing.T) {
			c := newCluster(t)
			path := filepath.Join(t.TempDir(), "jwks.json")
			if row.file {
				c.WriteJWKS(path)
				c.settings.JWKSPath = path
			}
			v := c.verifier(t)
			v.interval, v.least = time.Hour, 10*time.Millisecond
			require.NoError(t, v.Reload("start"))
			runInBackground(t, v)
			before := c.token()
			require.Empty(t, reasonOf(v, before))

			c.SetKeys(fixture.NewIssuerKey("RS256"))
			after := c.token()
			_, err := v.Verify(after)
			require.Equal(t, ReasonKey, err.(*Error).Reason)
			assert.Equal(t, !row.file, err.(*Error).RetryAfter > 0, "it pays to come back")
			if row.file {
				c.WriteJWKS(path)
			}
			require.Eventually(t, func() bool { return reasonOf(v, after) == "" }, 30*time.Second, 10*time.Millisecond)
			assert.Equal(t, ReasonKey, reasonOf(v, before), "although it was verified before")
		})
	}
}

func runInBackground(t *testing.T, v *Verifier) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); v.Run(ctx, files.NewWatcher(ctx, slog.Default())) }()
	t.Cleanup(func() {
		cancel()
		select {
		case <-done:
		case <-time.After(30 * time.Second):
			t.Error("Run does not end")
		}
	})
}

func TestRun_strangersWithUnknownKeys_doNotMakeItAskMoreOften(t *testing.T) {
	c := newCluster(t)
	v := c.verifier(t)
	v.interval, v.least = time.Hour, time.Hour
	require.NoError(t, v.Reload("start"))
	runInBackground(t, v)
	stranger := fixture.NewIssuer(c.URL, "ES256")
	for range 1000 {
		assert.Equal(t, ReasonKey, reasonOf(v, stranger.Token("payments", "web", testAudience)))
	}
	time.Sleep(100 * time.Millisecond) // for it to ask, if it did
	assert.Equal(t, []string{fixture.DiscoveryPath + " Bearer " + ownToken, fixture.JWKSPath + " Bearer " + ownToken},
		c.Asked())
	assert.Empty(t, reasonOf(v, c.token()))
}

func TestRun_keysAreNewerThanTheToken_doesNotTellToComeBack(t *testing.T) {
	c := newCluster(t)
	v := c.verifier(t)
	require.NoError(t, v.Reload("start"))
	_, err := v.Verify(fixture.NewIssuer(c.URL, "ES256").Token("payments", "web", testAudience,
		func(claims map[string]any) { claims["iat"] = time.Now().Add(-5 * time.Minute).Unix() }))
	require.Equal(t, ReasonKey, err.(*Error).Reason)
	assert.Zero(t, err.(*Error).RetryAfter)
}

func TestRun_issuerIsDownAtTheStart_tokensAreUnavailableUntilItIsUp(t *testing.T) {
	c := newCluster(t)
	c.Answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	v := c.verifier(t)
	require.ErrorContains(t, v.Reload("start"), "503 Service Unavailable")
	runInBackground(t, v)
	token := c.token()
	_, err := v.Verify(token)
	require.Equal(t, ReasonUnavailable, err.(*Error).Reason)
	assert.Positive(t, err.(*Error).RetryAfter)
	assert.Equal(t, ReasonAudience, reasonOf(v, c.Token("payments", "web", "vault")), "which waiting does not help")
	c.Answer(nil)
	require.Eventually(t, func() bool { return reasonOf(v, token) == "" }, 30*time.Second, 10*time.Millisecond)
}

func TestRun_withoutReload_readsTheKeysAtOnce(t *testing.T) {
	for _, file := range []bool{false, true} {
		c := newCluster(t)
		if file {
			c.settings.JWKSPath = filepath.Join(t.TempDir(), "jwks.json")
			c.WriteJWKS(c.settings.JWKSPath)
		}
		v := c.verifier(t)
		runInBackground(t, v)
		token := c.token()
		require.Eventually(t, func() bool { return reasonOf(v, token) == "" }, 30*time.Second, 10*time.Millisecond)
	}
}

func TestRun_withoutReload_saysThatTheFileIsMissing(t *testing.T) {
	c := newCluster(t)
	c.settings.JWKSPath = filepath.Join(t.TempDir(), "jwks.json")
	runInBackground(t, c.verifier(t))
	require.ErrorContains(t, c.reading(t), "does not exist")
}

func TestVerify_rememberedToken_expires(t *testing.T) {
	c := newCluster(t)
	clock := time.Now()
	c.settings.Now = func() time.Time { return clock }
	v := c.verifier(t)
	require.NoError(t, v.Reload("start"))
	token := c.token()
	require.Empty(t, reasonOf(v, token))
	require.Len(t, v.keys.Load().verified, 1)
	clock = clock.Add(12 * time.Minute)
	assert.Equal(t, ReasonExpired, reasonOf(v, token))
	clock = clock.Add(-24 * time.Hour)
	assert.Equal(t, ReasonNotYetValid, reasonOf(v, token))
}

func TestSameKeys_isNotFooledByAnotherAlgorithm(t *testing.T) {
	x := newTrial()
	var sets []*keySet
	for _, alg := range []string{`"RS256"`, `"RS384"`, "none"} {
		x.run(t, "keys RS256")
		x.run(t, "jwk 0 alg "+alg)
		set, _, err := parseSet(fixture.Must(json.Marshal(map[string]any{"keys": x.jwks})))
		require.NoError(t, err)
		sets = append(sets, set)
	}
	for i, one := range sets {
		for j, other := range sets {
			assert.Equal(t, i == j, one.sameKeys(other), "%d, %d", i, j)
		}
	}
}

func TestRun_endsWhileTheIssuerIsSilent(t *testing.T) {
	c := newCluster(t)
	asked := make(chan struct{}, 1)
	c.Answer(func(_ http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	v := c.verifier(t)
	go func() { defer close(done); v.Run(ctx, files.NewWatcher(ctx, slog.Default())) }()
	<-asked
	cancel()
	select {
	case <-done:
	case <-time.After(8 * time.Second): // sooner than a reading gives up
		t.Fatal("Run does not end")
	}
	assert.Empty(t, c.log.String())
}

func TestReload_badKeys_doNotReplaceGoodOnes(t *testing.T) {
	c := newCluster(t)
	v := c.verifier(t)
	require.NoError(t, v.Reload("start"))
	token := c.token()
	for _, answer := range []http.HandlerFunc{
		func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("garbage")) },
		func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == fixture.JWKSPath {
				_, _ = w.Write([]byte(`{"keys":[]}`))
				return
			}
			_, _ = w.Write(c.Discovery())
		},
	} {
		c.Answer(answer)
		require.ErrorContains(t, v.Reload("SIGHUP"), "the last good ones stay in use")
		assert.Empty(t, reasonOf(v, token))
		assert.Empty(t, reasonOf(v, c.token()))
	}
	c.Answer(nil)
	require.NoError(t, v.Reload("SIGHUP"))
	for _, failed := range []bool{false, true, true, true, false} {
		assert.Equal(t, failed, c.reading(t) != nil)
	}
	assert.Equal(t, 3, strings.Count(c.log.String(), "level=ERROR"))
	assert.Equal(t, 2, strings.Count(c.log.String(), `msg="the keys of the token issuer were read"`))
}

func TestRun_badFile_doesNotReplaceAGoodOne(t *testing.T) {
	c := newCluster(t)
	c.settings.JWKSPath = filepath.Join(t.TempDir(), "jwks.json")
	c.WriteJWKS(c.settings.JWKSPath)
	v := c.verifier(t)
	require.NoError(t, v.Reload("start"))
	require.NoError(t, c.reading(t))
	runInBackground(t, v)
	require.NoError(t, os.WriteFile(c.settings.JWKSPath+".new", []byte("garbage"), 0o600))
	require.NoError(t, os.Rename(c.settings.JWKSPath+".new", c.settings.JWKSPath))
	require.ErrorContains(t, c.reading(t), "is not JSON")
	assert.Empty(t, reasonOf(v, c.token()))
	require.NoError(t, os.Remove(c.settings.JWKSPath))
	require.ErrorContains(t, c.reading(t), "does not exist")
	assert.Empty(t, reasonOf(v, c.token()))
	c.SetKeys(fixture.NewIssuerKey("EdDSA"))
	c.WriteJWKS(c.settings.JWKSPath)
	require.NoError(t, c.reading(t))
	assert.Empty(t, reasonOf(v, c.token()))
}

func TestReload_keyThatIsNotUsed_isWarnedOfOnce(t *testing.T) {
	c := newCluster(t)
	c.SetKeys(append(c.Keys(), fixture.NewIssuerKey("ES512"))...)
	v := c.verifier(t)
	for _, trigger := range []string{"start", triggerInterval, "SIGHUP", triggerUnknown} {
		require.NoError(t, v.Reload(trigger))
	}
	log := c.log.String()
	assert.Equal(t, 1, strings.Count(log, "keys[1] is ECDSA-P521"), log)
	assert.Equal(t, 2, strings.Count(log, "were read"), "what happens every few minutes is not logged: %s", log)
}

func TestReload_sameKeysInAnotherOrder_remembersTokens(t *testing.T) {
	c := newCluster(t)
	one, two := c.Keys()[0], fixture.NewIssuerKey("ES256")
	c.SetKeys(one, two)
	v := c.verifier(t)
	require.NoError(t, v.Reload("start"))
	require.Empty(t, reasonOf(v, c.token()))
	before := v.keys.Load()
	c.SetKeys(two, one)
	require.NoError(t, v.Reload("SIGHUP"))
	assert.Same(t, before, v.keys.Load())
	assert.Len(t, before.verified, 1)
	for _, other := range [][]fixture.IssuerKey{{two}, {one}, {{ID: "other", Algorithm: "ES256", Key: one.Key}}} {
		before = v.keys.Load()
		c.SetKeys(other...)
		require.NoError(t, v.Reload("SIGHUP"))
		assert.NotSame(t, before, v.keys.Load())
	}
}

func TestNew_namesEachVariableThatIsWrong(t *testing.T) {
	for _, row := range []struct{ issuer, audience, jwks, want string }{
		{"https://a", "b", "", ""},
		{"https://a/b/", "b", "", ""},
		{"kubernetes/serviceaccount", "b", "/jwks.json", ""},
		{"", "", "", "TOKEN_ISSUER is not set, want the issuer of the tokens\nTOKEN_AUDIENCE is not set, " +
			"want the audience that tokens must be for, as in the projected volumes of the clients"},
		{"kubernetes/serviceaccount", "b", "", `TOKEN_ISSUER "kubernetes/serviceaccount" is not an https URL`},
		{"http://a", "b", "", `TOKEN_ISSUER "http://a" is not an https URL`},
		{"https:///a", "b", "", `TOKEN_ISSUER "https:///a" has no host`},
		{"https://a:b@c", "b", "", `TOKEN_ISSUER "…@c" has a user`},
		{"https://a?b", "b", "", "has a query or a fragment"},
		{"https://a?", "b", "", "has a query or a fragment"},
		{"https://a#", "b", "", "has a query or a fragment"},
	} {
		_, err := New(Settings{Issuer: row.issuer, Audience: row.audience, JWKSPath: row.jwks})
		if row.want == "" {
			require.NoError(t, err)
			continue
		}
		require.ErrorContains(t, err, row.want)
	}
}

func TestIsIssuer(t *testing.T) {
	v := Verifier{issuer: fixture.Must(url.Parse("https://issuer.example/path"))}
	for text, want := range map[string]bool{
		"https://issuer.example/other": true, "https://ISSUER.example:443": true, "https://issuer.example:8443": false,
		"http://issuer.example:443": false, "https://issuer.example.": false, "https://a.issuer.example": false,
	} {
		assert.Equal(t, want, v.isIssuer(fixture.Must(url.Parse(text))), text)
	}
}

func TestVerifier_isUsedByManyAtOnce(t *testing.T) {
	c := newCluster(t)
	v := c.verifier(t)
	v.least = time.Millisecond
	require.NoError(t, v.Reload("start"))
	runInBackground(t, v)
	stranger := fixture.NewIssuer(c.URL, "ES256")
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 20 {
				assert.Empty(t, reasonOf(v, c.token()))
				assert.Equal(t, ReasonKey, reasonOf(v, stranger.Token("payments", "web", testAudience)))
				assert.NoError(t, v.Reload("SIGHUP"))
			}
		})
	}
	go func() {
		for range c.readings { // never full
			continue
		}
	}()
	all.Wait()
}

func TestRemember_isBounded_andDropsExpiredTokens(t *testing.T) {
	x := newTrial()
	x.run(t, "keys ES256")
	v := x.verifier(t)
	require.NoError(t, v.Reload("start"))
	set := v.keys.Load()
	remember := func(n int, expires time.Time) {
		var digest [32]byte
		copy(digest[:], fmt.Sprint(n))
		set.remember(digest, Claims{Expires: expires}, noon)
	}
	for n := range 2 * maxRemembered {
		remember(n, noon.Add(-time.Hour))
	}
	assert.Equal(t, maxRemembered, len(set.verified))
	for n := range maxRemembered/32 + 1 { // room is made for 64 at a time: as many of them would fill it again
		remember(-1-n, noon.Add(time.Hour))
	}
	assert.Less(t, len(set.verified), maxRemembered)
}

func TestDecode_judgesNeitherTimesNorIssuerNorSignature(t *testing.T) {
	token := fixture.NewIssuer("https://elsewhere.example").Token("payments", "web", "vault",
		func(claims map[string]any) { claims["exp"], claims["iat"] = 1000, 10 })
	c, audiences, err := Decode(part(token, 2, "AAAA"))
	require.NoError(t, err)
	assert.Equal(t, []string{"vault"}, audiences)
	assert.Equal(t, "https://elsewhere.example", c.Issuer)
	assert.Equal(t, "system:serviceaccount:payments:web", c.Subject())
	assert.Equal(t, time.Unix(1000, 0).UTC(), c.Expires)
	for token, want := range map[string]Reason{"a.b": ReasonMalformed, "e30.e30.": ReasonMalformed,
		"eyJhbGciOiJub25lIn0.e30.": ReasonClaims, "eyJhbGciOiJub25lIn0.W10.": ReasonMalformed} {
		_, _, err := Decode(token)
		require.Error(t, err, token)
		assert.Equal(t, want, err.(*Error).Reason, token)
	}
}
