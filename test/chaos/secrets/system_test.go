package secrets

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
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
	t       *testing.T
	stack   *fixture.Stack
	dir     string
	secrets map[string][]byte
	outputs map[string][]byte
}

// certfetcher runs one to its end and keeps its output.
func (s *system) certfetcher(name string, want int, variables []string, args ...string) {
	s.t.Helper()
	cmd := exec.Command(binDir+"/certfetcher", args...)
	message := filepath.Join(s.dir, "termination "+name)
	require.NoError(s.t, os.WriteFile(message, nil, 0o600))
	cmd.Env = append(variables, "TERMINATION_MESSAGE_PATH="+message)
	code, out := chaos.Run(s.t, cmd)
	s.outputs[name] = []byte(out)
	require.Equal(s.t, want, code, "%s: %s", name, out)
	s.outputs["termination message of "+name], _ = os.ReadFile(message)
}

// keepKey makes the key that is published now one of the secrets.
func (s *system) keepKey(volume string) []byte {
	s.t.Helper()
	content, err := os.ReadFile(volume + "/key.pem")
	require.NoError(s.t, err)
	block, _ := pem.Decode(content)
	require.NotNil(s.t, block)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	require.NoError(s.t, err)
	scalar, err := key.(*ecdsa.PrivateKey).Bytes()
	require.NoError(s.t, err)
	s.secrets[fmt.Sprintf("private key %d", len(s.secrets))] = scalar
	return scalar
}

func get(t *testing.T, method, url string) []byte {
	t.Helper()
	request, err := http.NewRequest(method, url, nil)
	require.NoError(t, err)
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return body
}

func TestSystem_letsNoSecretOut(t *testing.T) {
	dir := t.TempDir()
	authority, server, err := fixture.StartDevCA(binDir, dir, "LOG_LEVEL=debug")
	require.NoError(t, err)
	t.Cleanup(authority.Stop)
	running, err := fixture.StartCertService(binDir, dir, server, "LOG_LEVEL=debug")
	require.NoError(t, err)
	t.Cleanup(running.Stop)
	s := &system{t: t, stack: running, dir: dir, outputs: map[string][]byte{}, secrets: map[string][]byte{
		"IAK": []byte(iak), "password of the identity": []byte(fixture.Password),
		"password of the stores": []byte(storePass), "token": []byte(token),
		"wrong password": []byte(wrongPass),
	}}
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	volume, dump := dir+"/volume", dir+"/child"
	told := make(chan struct{}, 100)
	hook := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { told <- struct{}{} }))
	t.Cleanup(hook.Close)
	identity := file("identity.pass", fixture.Password)
	variables := func(more ...string) []string {
		return fixture.Environment(running.URL, running.Dir, volume, append([]string{
			"LOG_LEVEL=debug", "OUTPUT_TYPE=P12,JKS,PEM",
			"KEYSTORE_PATH=" + running.Dir + "/client.p12", "KEYSTORE_PASSWORD_FILE=" + identity,
			"TRUSTSTORE_PATH=" + running.Dir + "/truststore.p12", "TRUSTSTORE_PASSWORD_FILE=" + identity,
			"OUTPUT_KEYSTORE_PASSWORD=" + storePass, "OUTPUT_TRUSTSTORE_PASSWORD=" + storePass,
			"RETRY_INITIAL_INTERVAL=5ms", "RETRY_MAX_ELAPSED=50ms", "HEALTH_ADDR=127.0.0.1:0",
		}, more...)...)
	}
	s.certfetcher("init", 0, variables())
	s.keepKey(volume)

	s.sidecar(volume, told, variables("MODE=sidecar",
		"NOTIFY_EXEC="+childPath+" "+dump, "NOTIFY_URL="+hook.URL+"/reload?token="+token,
		"NOTIFY_URL_ALLOW_REMOTE=true"))
	s.outputs["environment, command line and files of a child"], err = os.ReadFile(dump)
	require.NoError(t, err)
	require.Contains(t, string(s.outputs["environment, command line and files of a child"]), "CERTFETCHER_SERIAL=")

	s.certfetcher("doctor", 0, variables(), "doctor", "-o", "json")
	s.certfetcher("inspect", 0, variables(), "inspect", volume, "-o", "json")
	s.certfetcher("probe", 0, variables(), "probe")
	s.certfetcher("check", 0, variables(), "--check")
	s.certfetcher("wrong password", 9, variables("KEYSTORE_PASSWORD="+wrongPass, "KEYSTORE_PASSWORD_FILE="))
	s.certfetcher("wrong password from a file", 9, variables("KEYSTORE_PASSWORD_FILE="+file("wrong", wrongPass)))
	s.certfetcher("doctor with a wrong password", 9,
		variables("KEYSTORE_PASSWORD="+wrongPass, "KEYSTORE_PASSWORD_FILE="), "doctor")
	s.certfetcher("unknown CA", 5, variables("CA_NAME=Nobody", "FORCE_ENROLL=true"))
	s.certfetcher("a password of the stores that breaks its rule", 1,
		variables("OUTPUT_KEYSTORE_PASSWORD="+storePass+"é"))

	server["authentication"] = map[string]string{"iak": wrongPass, "rv": fixture.CAName}
	wrong, err := fixture.StartCertService(binDir, dir+"/wrong IAK", server, "LOG_LEVEL=debug")
	require.NoError(t, err)
	t.Cleanup(wrong.Stop)
	s.certfetcher("wrong IAK", 5, variables("REQUEST_URL="+wrong.URL, "FORCE_ENROLL=true",
		"KEYSTORE_PATH="+wrong.Dir+"/client.p12",
		"TRUSTSTORE_PATH="+wrong.Dir+"/truststore.p12"))

	s.outputs["metrics of certservice"] = get(t, http.MethodGet, "http://"+running.Operations+"/metrics")
	s.outputs["certservice"], s.outputs["devca"] = []byte(running.CertService.Logged()), []byte(authority.Logged())
	s.outputs["certservice with a wrong IAK"] = []byte(wrong.CertService.Logged())
	for name, output := range s.outputs {
		assert.Empty(t, find(output, s.secrets), "%s: %s", name, output)
	}
	s.volumeHoldsSecretsWhereTheyBelong(volume)
	chaos.Record(t, "", len(s.secrets), len(s.outputs))
}

// sidecar runs one that renews twice, keeps its keys, and ends it.
func (s *system) sidecar(volume string, told <-chan struct{}, variables []string) {
	t := s.t
	t.Helper()
	cmd := exec.Command(binDir + "/certfetcher")
	cmd.Env = variables
	p := chaos.Start(t, cmd)
	require.True(t, p.Await(`"msg":"serving probes and metrics"`), "the sidecar serves nothing")
	address := regexp.MustCompile(`"msg":"serving probes and metrics","address":"([^"]+)"`).
		FindStringSubmatch(p.Printed())
	url := "http://" + address[1]
	for range 2 {
		before := s.keepKey(volume)
		get(t, http.MethodPost, url+"/renew")
		select {
		case <-told:
		case <-time.After(chaos.Deadline):
			t.Fatalf("the application was not told: %s", p.Printed())
		}
		require.NotEqual(t, before, s.keepKey(volume), "the key is the same after a renewal")
	}
	s.outputs["metrics of certfetcher"] = get(t, http.MethodGet, url+"/metrics")
	p.End(t)
	s.outputs["sidecar"] = []byte(p.Printed())
}

// volumeHoldsSecretsWhereTheyBelong looks at all files: the key in those that are for it, passwords in theirs.
func (s *system) volumeHoldsSecretsWhereTheyBelong(volume string) {
	t := s.t
	t.Helper()
	mayHold := map[string]string{"key.pem": "private key", "keystore-combined.pem": "private key",
		"keystore.pass": "password of the stores", "truststore.pass": "password of the stores"}
	seen := map[string]bool{}
	err := filepath.WalkDir(volume, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name := filepath.Base(path)
		secrets := maps.Clone(s.secrets)
		maps.DeleteFunc(secrets, func(secret string, _ []byte) bool {
			return mayHold[name] != "" && strings.HasPrefix(secret, mayHold[name])
		})
		assert.Empty(t, find(content, secrets), name)
		info, err := entry.Info()
		if mayHold[name] != "" {
			seen[name] = true
			assert.Zero(t, info.Mode().Perm()&0o007, "%s has mode %v", name, info.Mode())
		}
		return err
	})
	require.NoError(t, err)
	assert.True(t, seen["key.pem"] && seen["keystore.pass"], "%v", seen)
}
