package secrets

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/fixture"
)

const (
	iak       = "demonstration" // that of package stack
	storePass = "Known+Store/Pass=word"
	token     = "known-token-of-the-application"
	wrongPass = "a-wrong-password-of-mine"
)

// system is everything that runs, and all that it lets out.
type system struct {
	t           *testing.T
	dir, volume string
	environment []string // of certfetcher
	secrets     map[string][]byte
	outputs     map[string][]byte
}

// certfetcher runs one to its end and keeps its output.
func (s *system) certfetcher(name, want string, words ...string) {
	s.t.Helper()
	message := chaos.Write(s.t, filepath.Join(s.dir, "termination "+name), "")
	words = append(words, "TERMINATION_MESSAGE_PATH="+message)
	code, out := chaos.Run(s.t, chaos.Program("certfetcher", s.environment, words...))
	s.outputs[name] = []byte(out)
	require.Equal(s.t, want, fmt.Sprint(code), "%s: %s", name, out)
	s.outputs["termination message of "+name], _ = os.ReadFile(message)
}

// keepKey makes the key that is published now one of the secrets.
func (s *system) keepKey() []byte {
	s.t.Helper()
	content := fixture.Must(os.ReadFile(s.volume + "/key.pem"))
	block, _ := pem.Decode(content)
	require.NotNil(s.t, block)
	key := fixture.Must(x509.ParsePKCS8PrivateKey(block.Bytes))
	scalar := fixture.Must(key.(*ecdsa.PrivateKey).Bytes())
	s.secrets[fmt.Sprintf("private key %d", len(s.secrets))] = scalar
	return scalar
}

// send keeps what is answered.
func (s *system) send(name, method, url string) {
	s.t.Helper()
	status, body := chaos.Send(method, url)
	require.Equal(s.t, 2, status/100, body)
	s.outputs[name] = []byte(body)
}

func TestSystem_letsNoSecretOut(t *testing.T) {
	dir := t.TempDir()
	authority, server, err := fixture.StartDevCA(chaos.Bin, dir, "LOG_LEVEL=debug")
	require.NoError(t, err)
	t.Cleanup(authority.Stop)
	start := func(dir string) *fixture.Stack {
		s := fixture.Must(fixture.StartCertService(chaos.Bin, dir, server, "LOG_LEVEL=debug"))
		t.Cleanup(s.Stop)
		return s
	}
	running := start(dir)
	identity := chaos.Write(t, dir+"/identity.pass", fixture.Password)
	s := &system{t: t, dir: dir, volume: dir + "/volume", outputs: map[string][]byte{},
		secrets: map[string][]byte{"IAK": []byte(iak), "password of the identity": []byte(fixture.Password),
			"token": []byte(token), "password of the stores": []byte(storePass), "wrong password": []byte(wrongPass)}}
	s.environment = fixture.Environment(running.URL, running.Dir, s.volume,
		"LOG_LEVEL=debug", "OUTPUT_TYPE=P12,JKS,PEM",
		"KEYSTORE_PATH="+running.Dir+"/client.p12", "KEYSTORE_PASSWORD_FILE="+identity,
		"TRUSTSTORE_PATH="+running.Dir+"/truststore.p12", "TRUSTSTORE_PASSWORD_FILE="+identity,
		"OUTPUT_KEYSTORE_PASSWORD="+storePass, "OUTPUT_TRUSTSTORE_PASSWORD="+storePass,
		"RETRY_INITIAL_INTERVAL=5ms", "RETRY_MAX_ELAPSED=50ms", "HEALTH_ADDR=127.0.0.1:0")
	s.certfetcher("init", "0")
	s.sidecar()
	server["authentication"] = map[string]string{"iak": wrongPass, "rv": fixture.CAName}
	wrong := start(dir + "/other")
	for _, row := range chaos.Rows(t, "runs.txt", 3, map[string]string{"VOLUME": s.volume, "STOREPASS": storePass,
		"WRONG": wrongPass, "FILE": chaos.Write(t, dir+"/wrong", wrongPass), "URL": wrong.URL, "DIR": wrong.Dir}) {
		s.certfetcher(row[0], row[1], strings.Fields(row[2])...)
	}

	s.send("metrics of certservice", "GET", "http://"+running.Operations+"/metrics")
	for name, p := range map[string]*fixture.Process{"devca": authority,
		"certservice": running.CertService, "certservice with a wrong IAK": wrong.CertService} {
		s.outputs[name] = []byte(p.Logged())
	}
	for name, output := range s.outputs {
		assert.Empty(t, find(output, s.secrets), "%s: %s", name, output)
	}
	s.volumeHoldsSecretsWhereTheyBelong()
	chaos.Record(t, "", len(s.secrets), len(s.outputs))
}

// sidecar runs one that renews twice and tells an application and a command, keeps its keys, and ends it.
func (s *system) sidecar() {
	s.t.Helper()
	told := make(chan struct{}, 100)
	tell := func(http.ResponseWriter, *http.Request) { told <- struct{}{} }
	hook := httptest.NewServer(http.HandlerFunc(tell))
	s.t.Cleanup(hook.Close)
	dump := s.dir + "/child"
	p := chaos.Start(s.t, chaos.Program("certfetcher", s.environment, "MODE=sidecar",
		"NOTIFY_EXEC="+chaos.Self+" child "+dump, "NOTIFY_URL="+hook.URL+"/reload?token="+token,
		"NOTIFY_URL_ALLOW_REMOTE=true"))
	require.True(s.t, p.Await(`"msg":"serving probes and metrics"`), "the sidecar serves nothing")
	serves := regexp.MustCompile(`"msg":"serving probes and metrics","address":"([^"]+)"`)
	url := "http://" + serves.FindStringSubmatch(p.Printed())[1]
	for range 2 {
		before := s.keepKey()
		s.send("an answer to a request to renew", "POST", url+"/renew")
		select {
		case <-told:
		case <-time.After(chaos.Deadline):
			s.t.Fatalf("the application was not told: %s", p.Printed())
		}
		require.NotEqual(s.t, before, s.keepKey(), "the key is the same after a renewal")
	}
	s.send("metrics of certfetcher", "GET", url+"/metrics")
	p.End(s.t)
	given := fixture.Must(os.ReadFile(dump))
	require.Contains(s.t, string(given), "CERTFETCHER_SERIAL=")
	s.outputs["sidecar"], s.outputs["what a child is given"] = []byte(p.Printed()), given
}

// volumeHoldsSecretsWhereTheyBelong looks at all files: the key in those that are for it, passwords in theirs.
func (s *system) volumeHoldsSecretsWhereTheyBelong() {
	s.t.Helper()
	mayHold := map[string]string{"key.pem": "private key", "keystore-combined.pem": "private key",
		"keystore.pass": "password of the stores", "truststore.pass": "password of the stores"}
	seen := map[string]bool{}
	require.NoError(s.t, filepath.WalkDir(s.volume, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		content := fixture.Must(os.ReadFile(path))
		secrets, may := maps.Clone(s.secrets), mayHold[entry.Name()]
		maps.DeleteFunc(secrets, func(name string, _ []byte) bool {
			return may != "" && strings.HasPrefix(name, may)
		})
		assert.Empty(s.t, find(content, secrets), path)
		info := fixture.Must(entry.Info())
		if may != "" {
			seen[entry.Name()] = true
			assert.Zero(s.t, info.Mode().Perm()&0o007, "%s has mode %v", path, info.Mode())
		}
		return nil
	}))
	assert.True(s.t, seen["key.pem"] && seen["keystore.pass"], "%v", seen)
}
