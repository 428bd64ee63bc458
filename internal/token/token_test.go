package token

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
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

	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
)

const (
	testIssuer   = "https://kubernetes.default.svc.cluster.local"
	testAudience = "certservice"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// keyNamed gives the same key for the same name: an algorithm, and a word before it for others.
var keyNamed = func() func(name string) fixture.IssuerKey {
	var mu sync.Mutex
	made := map[string]fixture.IssuerKey{}
	return func(name string) fixture.IssuerKey {
		mu.Lock()
		defer mu.Unlock()
		if _, found := made[name]; !found {
			made[name] = fixture.NewIssuerKey(name[strings.LastIndex(name, "-")+1:])
			if strings.HasPrefix(name, "short-") {
				key := made[name]
				key.Key = fixture.NewKey("RSA-1024")
				made[name] = key
			}
		}
		return made[name]
	}
}()

// trial is a token, and the verifier that gets it.
type trial struct {
	settings       Settings
	jwks           []map[string]any
	key            fixture.IssuerKey
	header, claims map[string]any
	headerText     string // in place of header
	payloadText    string // in place of claims
	change         func(token string) string
	clock          time.Time
}

// The commands of testdata/tokens.txt.
func (x *trial) run(t testing.TB, command string) {
	verb, rest, _ := strings.Cut(command, " ")
	first, second, _ := strings.Cut(rest, " ")
	switch verb {
	case "keys": // of the issuer, instead of RS256 and ES256
		x.jwks = []map[string]any{}
		for name := range strings.FieldsSeq(rest) {
			x.jwks = append(x.jwks, keyNamed(name).JWK())
		}
	case "copies": // of the first, each with a kid of its own
		for n := range fixture.Must(strconv.Atoi(rest)) {
			x.jwks = append(x.jwks, maps.Clone(x.jwks[0]))
			x.jwks[n+1]["kid"] = strconv.Itoa(n)
		}
	case "jwk": // NUMBER MEMBER VALUE
		jwk := x.jwks[fixture.Must(strconv.Atoi(first))]
		switch member, value, _ := strings.Cut(second, " "); value {
		case "of 4104 bits":
			jwk[member] = strings.Repeat("_", 684)
		case "made even":
			jwk[member] = jwk[member].(string)[:341] + "A"
		default:
			set(t, jwk, member, value)
		}
	case "by": // the key that signs, instead of RS256
		x.key = keyNamed(rest)
		x.header = map[string]any{"alg": x.key.Algorithm, "kid": x.key.ID}
	case "header":
		if first == "kid" && strings.HasPrefix(second, "of ") {
			second = strconv.Quote(keyNamed(strings.TrimPrefix(second, "of ")).ID)
		}
		set(t, x.header, first, second)
	case "header=":
		x.headerText = strings.ReplaceAll(rest, "KID OF RS256", keyNamed("RS256").ID)
	case "claim":
		set(t, x.claims, first, second)
	case "payload=":
		x.payloadText = rest
	case "later":
		x.clock = x.clock.Add(fixture.Must(time.ParseDuration(rest)))
	case "allow":
		require.Equal(t, "unbound", rest)
		x.settings.AllowUnbound = true
	case "key": // that signs is replaced in the header by itself, as an attacker would have it
		require.Equal(t, "in jwk", rest)
		x.header["jwk"] = x.key.JWK()
	case "make": // what is sent another
		x.change = changes[rest]
		require.NotNil(t, x.change, rest)
	default:
		t.Fatalf("no command %q", command)
	}
}

// set gives a member a value: JSON, "none", or a time such as "now+10m". Its path has slashes.
func set(t testing.TB, object map[string]any, path, text string) {
	if outer, inner, nested := strings.Cut(path, "/"); nested {
		set(t, object[outer].(map[string]any), inner, text)
		return
	}
	if text == "none" {
		delete(object, path)
		return
	}
	if after, isTime := strings.CutPrefix(text, "now"); isTime {
		if after == "" {
			after = "0s"
		}
		object[path] = noon.Add(fixture.Must(time.ParseDuration(after))).Unix()
		return
	}
	require.True(t, json.Valid([]byte(text)), text)
	object[path] = json.RawMessage(text)
}

// changes are what is done to the text of a token.
var changes = map[string]func(token string) string{
	"with a megabyte of claims": func(token string) string { return part(token, 1, strings.Repeat("A", 1<<20)) },
	"of 16 KiB":                 func(token string) string { return lengthen(token, MaxBytes) },
	"of 16 KiB and a byte":      func(token string) string { return lengthen(token, MaxBytes+1) },
	"of two parts":              func(token string) string { return token[:strings.LastIndex(token, ".")] },
	"of five parts":             func(token string) string { return token + ".AAAA.AAAA" },
	"empty":                     func(string) string { return "" },
	"with padding":              func(token string) string { return token + "==" },
	"with a line break":         func(token string) string { return token[:10] + "\n" + token[10:] },
	"with a space":              func(token string) string { return " " + token },
	"with another alphabet":     func(token string) string { return part(token, 2, "+/+/") },
	"with trailing bits": func(token string) string { // 256 bytes are 342 characters, the last of 2 bits
		last := strings.IndexByte(alphabet, token[len(token)-1])
		return token[:len(token)-1] + string(alphabet[last|1])
	},
	"without a signature": func(token string) string { return part(token, 2, "") },
	"with a changed signature": func(token string) string {
		last := strings.LastIndex(token, ".") + 1
		return token[:last] + string(alphabet[63-strings.IndexByte(alphabet, token[last])]) + token[last+1:]
	},
	"with the claims of another namespace": func(token string) string {
		payload := fixture.Must(base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1]))
		return part(token, 1, encode(bytes.ReplaceAll(payload, []byte("payments"), []byte("platform"))))
	},
	"with a header of 4 KiB and a byte": func(token string) string {
		header := fixture.Must(base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[0]))
		return part(token, 0, encode(append(bytes.Repeat([]byte(" "), maxHeader+1-len(header)), header...)))
	},
	"with 300 claims": func(token string) string {
		return part(token, 1, encode([]byte(`{"a":[`+strings.Repeat("0,", 300)+`0]}`)))
	},
	"with a byte that is not UTF-8": func(token string) string {
		return part(token, 1, encode([]byte("{\"\xff\":1}")))
	},
	"a JWS in JSON": func(token string) string {
		p := strings.Split(token, ".")
		return `{"protected":"` + p[0] + `","payload":"` + p[1] + `","signature":"` + p[2] + `"}`
	},
	"signed by HS256 with the public key in PEM as the secret": func(token string) string {
		public := fixture.Must(x509.MarshalPKIXPublicKey(keyNamed("RS256").Key.Public()))
		return signHS256(token, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))
	},
	"signed by HS256 with the JWKS as the secret": func(token string) string {
		return signHS256(token, fixture.JWKS(keyNamed("RS256")))
	},
}

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

func lengthen(token string, bytes int) string { return token + strings.Repeat("A", bytes-len(token)) }

func part(token string, n int, text string) string {
	parts := strings.Split(token, ".")
	parts[n] = text
	return strings.Join(parts, ".")
}

func encode(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }

func signHS256(token string, secret []byte) string {
	header := `{"alg":"HS256","kid":"` + keyNamed("RS256").ID + `"}`
	signed := encode([]byte(header)) + "." + strings.Split(token, ".")[1]
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(signed))
	return signed + "." + encode(mac.Sum(nil))
}

func newTrial() *trial {
	x := &trial{settings: Settings{Issuer: testIssuer, Audience: testAudience}, clock: noon}
	x.claims = (&fixture.Issuer{URL: testIssuer}).Claims("payments", "web", testAudience)
	for name, at := range map[string]time.Duration{"iat": 0, "nbf": 0, "exp": 10 * time.Minute} {
		x.claims[name] = noon.Add(at).Unix()
	}
	x.claims["jti"] = "f7c6a2e8-5e0c-4bd2-9f3b-1a2b3c4d5e6f"
	return x
}

func (x *trial) token() string {
	header, payload := []byte(x.headerText), []byte(x.payloadText)
	if x.headerText == "" {
		header = fixture.Must(json.Marshal(x.header))
	}
	if x.payloadText == "" {
		payload = fixture.Must(json.Marshal(x.claims))
	}
	token := x.key.SignHeader(header, payload)
	if x.change != nil {
		token = x.change(token)
	}
	return token
}

// verifier has the keys of the trial in a file.
func (x *trial) verifier(t testing.TB) *Verifier {
	x.settings.JWKSPath = filepath.Join(t.TempDir(), "jwks.json")
	require.NoError(t, os.WriteFile(x.settings.JWKSPath,
		fixture.Must(json.Marshal(map[string]any{"keys": x.jwks})), 0o600))
	x.settings.Now = func() time.Time { return x.clock }
	v, err := New(x.settings)
	require.NoError(t, err)
	return v
}

var kid = regexp.MustCompile(`\\*"[A-Za-z0-9_-]{43}\\*"`)

// outcome says what comes of a token.
func outcome(c Claims, err error) string {
	if refused, ok := errors.AsType[*Error](err); ok {
		return string(refused.Reason) + ": " + kid.ReplaceAllString(refused.Error(), "KID")
	}
	text := "accepted: " + c.Subject()
	if c.Pod != "" {
		text += " in " + c.Pod
	}
	return text
}

// Each section of testdata/tokens.txt has a token of the pod of payments/web, which its commands
// change, and what comes of it.
func TestVerify_asTheTokensSay(t *testing.T) {
	golden.Play(t, "tokens.txt", func(t *testing.T, _, commands string) string {
		x := newTrial()
		x.run(t, "keys RS256 ES256")
		x.run(t, "by RS256")
		for command := range strings.Lines(commands) {
			x.run(t, strings.TrimSuffix(strings.TrimPrefix(command, "> "), "\n"))
		}
		token := x.token()
		v := x.verifier(t)
		require.NoError(t, v.Reload("start"))
		c, err := v.Verify(token)
		again, errAgain := v.Verify(token)
		assert.Equal(t, c, again)
		assert.Equal(t, err, errAgain)
		if err == nil {
			decoded, audiences, err := Decode(token)
			require.NoError(t, err)
			assert.Equal(t, c, decoded)
			assert.Contains(t, audiences, testAudience)
		} else {
			assert.Contains(t, Reasons, err.(*Error).Reason)
			for _, secret := range strings.Split(token, ".") {
				assert.False(t, len(secret) > 8 && strings.Contains(err.Error(), secret), "the error has the token")
			}
		}
		return outcome(c, err)
	})
}

// Each section of testdata/jwks.txt has a file of keys, and which of them are used.
func TestCheck_asTheSetsSay(t *testing.T) {
	golden.Play(t, "jwks.txt", func(t *testing.T, _, commands string) string {
		x := newTrial()
		var content []byte
		missing := false
		for command := range strings.Lines(commands) {
			command = strings.TrimSuffix(strings.TrimPrefix(command, "> "), "\n")
			switch rest, isFile := strings.CutPrefix(command, "file"); {
			case command == "no file":
				missing = true
			case strings.HasSuffix(rest, " bytes"):
				content = bytes.Repeat([]byte(" "), fixture.Must(strconv.Atoi(strings.Fields(rest)[1])))
			case isFile:
				content = []byte(strings.TrimPrefix(rest, " "))
			default:
				x.run(t, command)
			}
		}
		v := x.verifier(t)
		path := v.settings.JWKSPath
		if content != nil {
			require.NoError(t, os.WriteFile(path, content, 0o600))
		}
		if missing {
			require.NoError(t, os.Remove(path))
		}
		keys, warnings, err := v.Check()
		text := ""
		for _, key := range keys[:min(len(keys), 6)] {
			text += "the set has " + key + "\n"
		}
		for _, warning := range warnings {
			text += "warning: " + warning + "\n"
		}
		if err != nil {
			text += "error: " + strings.ReplaceAll(err.Error(), path, "jwks.json") + "\n"
		}
		assert.Zero(t, v.Keys(), "nothing is put to use")
		assert.Equal(t, err == nil, v.Reload("start") == nil)
		assert.Equal(t, len(keys), v.Keys())
		return fmt.Sprintf("keys used: %d\n", len(keys)) + kid.ReplaceAllString(text, "KID")
	})
}
