package config

import (
	"cmp"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/keygen"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
)

// valid is the least that runs, as an ONAP manifest gives it.
var valid = map[string]string{
	"OUTPUT_PATH": "/var/certs", "CA_NAME": "RA",
	"COMMON_NAME": "onap.org", "ORGANIZATION": "Linux-Foundation", "STATE": "California", "COUNTRY": "US",
	"KEYSTORE_PATH": "/etc/ks.jks", "KEYSTORE_PASSWORD": "secret-keystore",
	"TRUSTSTORE_PATH": "/etc/ts.jks", "TRUSTSTORE_PASSWORD": "secret-truststore",
}

func setenv(t *testing.T, changes map[string]string) {
	t.Helper()
	for _, v := range Variables {
		t.Setenv(v.Name, "")
		t.Setenv(v.Name+"_FILE", "")
	}
	for name, value := range valid {
		t.Setenv(name, value)
	}
	for name, value := range changes {
		t.Setenv(name, value)
	}
}

// Variables that are set otherwise than in the manifest, and which settings come out otherwise; or the exit code and
// the faults. What ONAP's client made of a subject comes from JDK 17's new X500Principal("CN=…, C=…, ST=…, O=…,
// OU=…, L=…").getEncoded().
func TestLoad(t *testing.T) {
	setenv(t, nil)
	manifest := settings(fixture.Must(Load()))
	golden.Play(t, "*.txt", func(t *testing.T, _, commands string) (said string) {
		tmp, usual := t.TempDir(), manifest
		setenv(t, nil)
		for command := range strings.Lines(commands) {
			name, value, isVariable := strings.Cut(strings.TrimSpace(command[2:]), "=")
			switch words := strings.SplitN(name, " ", 3); {
			case isVariable:
				t.Setenv(name, strings.ReplaceAll(fixture.Must(strconv.Unquote(value)), "{tmp}", tmp))
			case words[0] == "file":
				content := fixture.Must(strconv.Unquote(words[2]))
				require.NoError(t, os.WriteFile(filepath.Join(tmp, words[1]), []byte(content), 0o600))
			case name == "everything is shown":
				usual = nil
			case name == "nothing is set": // which is not the same as empty to os.LookupEnv
				for _, v := range Variables {
					require.NoError(t, os.Unsetenv(v.Name))
				}
			default:
				t.Fatalf("unknown command %q", command)
			}
		}
		got, err := Load()
		if err != nil {
			said = fmt.Sprintf("%d %v", err.(Faults).Stage().ExitCode(), err)
			return strings.ReplaceAll(said, tmp, "{tmp}")
		}
		now := settings(got)
		for _, path := range slices.Sorted(maps.Keys(now)) {
			if value, found := usual[path]; !found || value != now[path] {
				said += path + " = " + now[path] + "\n"
			}
		}
		for _, path := range slices.Sorted(maps.Keys(usual)) {
			if _, found := now[path]; !found {
				said += path + " is not set\n"
			}
		}
		return cmp.Or(strings.ReplaceAll(said, tmp, "{tmp}"), "as usual")
	})
}

// settings are the parts of what is loaded that are not zero, by their paths.
func settings(loaded *Fetcher) map[string]string {
	all := map[string]string{}
	var add func(path string, v reflect.Value)
	add = func(path string, v reflect.Value) {
		if v.IsZero() || v.Type() == reflect.TypeFor[pkix.Name]() { // of which there is the encoding
			return
		}
		text, isText := v.Interface().(fmt.Stringer)
		octets, areOctets := v.Interface().([]byte)
		switch {
		case isText && v.Kind() == reflect.Slice:
			all[path] = fmt.Sprintf("%s in %d octets", text, v.Len())
		case isText && v.Kind() != reflect.Struct:
			all[path] = text.String()
		case areOctets:
			all[path] = hex.EncodeToString(octets)
		case v.Kind() == reflect.Pointer:
			add(path, v.Elem())
		case v.Kind() == reflect.Struct:
			for i := range v.NumField() {
				add(strings.TrimPrefix(path+"."+v.Type().Field(i).Name, "."), v.Field(i))
			}
		case v.Kind() == reflect.Slice:
			for i := range v.Len() {
				add(fmt.Sprint(path, ".", i), v.Index(i))
			}
		default:
			all[path] = fmt.Sprint(v.Interface())
		}
	}
	add("", reflect.ValueOf(*loaded))
	if seed := "Sidecar.Policy.Seed"; all[seed] == fixture.Must(os.Hostname()) {
		all[seed] = "the host's name"
	}
	return all
}

func TestLoad_faults_neverShowASecret(t *testing.T) {
	for _, v := range Variables {
		if !v.Secret {
			continue
		}
		setenv(t, map[string]string{v.Name: "hu\x01sh-hush", "CA_NAME": ""})
		_, err := Load()
		require.Error(t, err)
		assert.NotContains(t, err.Error(), "sh-hush", v.Name)
	}
}

func TestVariables_areDocumented(t *testing.T) {
	for _, v := range Variables {
		assert.NotEmpty(t, v.Rule, v.Name)
		assert.NotEmpty(t, v.Help, v.Name)
		assert.NotEmpty(t, v.Group, v.Name)
		assert.Contains(t, stages, v.Part, v.Name)
	}
}

func TestTerminationMessagePath_theKubelets_isUsedWhereItExists(t *testing.T) {
	kubelets := filepath.Join(t.TempDir(), "termination-log")
	assert.Empty(t, terminationMessagePath(kubelets, kubelets))
	assert.Equal(t, "/another", terminationMessagePath("/another", kubelets))
	require.NoError(t, os.WriteFile(kubelets, nil, 0o600))
	assert.Equal(t, kubelets, terminationMessagePath(kubelets, kubelets))
}

func FuzzLoad_sans(f *testing.F) {
	for _, seed := range []string{"a@b.example,10.0.0.1,::1,a.example,*.a.example,urn:x", "a,,b",
		"http://[::1]:80/%zz", "@", ":", "\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.ContainsRune(text, 0) {
			return // an environment variable cannot hold one
		}
		setenv(t, map[string]string{"SANS": text})
		got, err := Load()
		if err == nil {
			require.NotNil(t, got.Certificate.Template)
		}
	})
}

func TestLoad_keyAlgorithms_areKeygens(t *testing.T) {
	for _, name := range keygen.Algorithms() {
		setenv(t, map[string]string{"KEY_ALGORITHM": name})
		got, err := Load()
		require.NoError(t, err)
		assert.Equal(t, name, got.Certificate.KeyAlgorithm)
	}
}

func TestNewFault_knowsTheVariablesPart(t *testing.T) {
	assert.Equal(t, Fault{enroll.StageClientConfiguration, "NOTIFY_URL", "cannot be used: not a URL"},
		NewFault("NOTIFY_URL", "cannot be used: not a URL"))
	assert.Equal(t, enroll.StageTLSConfiguration, NewFault("KEYSTORE_PATH", "").Stage)
	assert.Panics(t, func() { NewFault("NOTIFY_MAIL", "") })
}
