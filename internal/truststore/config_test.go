package truststore

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/program"
)

// setenv sets the four variables, empty where the map has none.
func setenv(t *testing.T, values map[string]string) {
	t.Helper()
	for _, v := range program.DescribeVariables(&environment{}) {
		t.Setenv(v.Name, values[v.Name])
	}
}

func TestLoad_readsPairs(t *testing.T) {
	tests := []struct {
		name string
		env  map[string]string
		want Config
	}{
		{"all four", map[string]string{
			truststoresVariable: "/v/trust.jks:/jdk/lib/security/cacerts:/v/ca.pem", passwordsVariable: "/v/trust.pass:/v/cacerts.pass:",
			sourcesVariable: "/v/keystore.p12:/v/keystore.pass", destinationsVariable: "/app/my.store-1.p12:/app/p.txt",
		}, Config{
			Truststores: []Store{{"/v/trust.jks", "/v/trust.pass"}, {"/jdk/lib/security/cacerts", "/v/cacerts.pass"}, {"/v/ca.pem", ""}},
			Keystores:   []Copy{{"/v/keystore.p12", "/app/my.store-1.p12"}, {"/v/keystore.pass", "/app/p.txt"}},
		}},
		{"truststores alone", map[string]string{truststoresVariable: "/v/a.jks:/v/b.jks", passwordsVariable: "/v/a.pass:/v/b.pass"},
			Config{Truststores: []Store{{"/v/a.jks", "/v/a.pass"}, {"/v/b.jks", "/v/b.pass"}}}},
		{"one PEM truststore, whose list of passwords is empty", map[string]string{truststoresVariable: "/v/a.pem"},
			Config{Truststores: []Store{{"/v/a.pem", ""}}}},
		{"two PEM truststores", map[string]string{truststoresVariable: "/v/a.pem:/v/b.pem", passwordsVariable: ":"},
			Config{Truststores: []Store{{"/v/a.pem", ""}, {"/v/b.pem", ""}}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			setenv(t, test.env)
			cfg, err := Load()
			require.NoError(t, err)
			assert.Equal(t, test.want, cfg)
		})
	}
}

func TestLoad_faults(t *testing.T) {
	tests := []struct {
		name string
		env  map[string]string
		code int
		want string
	}{
		{"nothing is set", nil, 2,
			`TRUSTSTORES_PATHS is not set, want absolute paths separated by ":"`},
		{"a relative path", map[string]string{truststoresVariable: "/v/a.pem:b.pem", passwordsVariable: ":"}, 1,
			`TRUSTSTORES_PATHS has "b.pem" as entry 2, want the absolute path of a file`},
		{"an empty path", map[string]string{truststoresVariable: "/v/a.pem:", passwordsVariable: ":"}, 1,
			`TRUSTSTORES_PATHS has "" as entry 2, want the absolute path of a file`},
		{"a directory", map[string]string{truststoresVariable: "/v/"}, 1,
			`TRUSTSTORES_PATHS has "/v/" as entry 1, want the absolute path of a file`},
		{"a relative password path", map[string]string{truststoresVariable: "/v/a.jks", passwordsVariable: "changeit"}, 1,
			`TRUSTSTORES_PASSWORDS_PATHS has "changeit" as entry 1, want the absolute path of a file`},
		{"fewer passwords than truststores", map[string]string{truststoresVariable: "/v/a.jks:/v/b.pem", passwordsVariable: "/v/a.pass"}, 2,
			`TRUSTSTORES_PATHS has 2 entries and TRUSTSTORES_PASSWORDS_PATHS has 1, want as many in each (an entry may be empty in TRUSTSTORES_PASSWORDS_PATHS only)`},
		{"no passwords at all", map[string]string{truststoresVariable: "/v/a.jks:/v/b.pem"}, 1,
			`TRUSTSTORES_PATHS has 2 entries and TRUSTSTORES_PASSWORDS_PATHS has 1, want as many in each (an entry may be empty in TRUSTSTORES_PASSWORDS_PATHS only)`},
		{"sources without destinations", map[string]string{truststoresVariable: "/v/a.pem", sourcesVariable: "/v/k.p12:/v/k.pass"}, 2,
			`KEYSTORE_SOURCE_PATHS has 2 entries and KEYSTORE_DESTINATION_PATHS has 0, want as many in each (an entry may be empty in TRUSTSTORES_PASSWORDS_PATHS only)`},
		{"several, of which the first decides", map[string]string{sourcesVariable: "k.p12", destinationsVariable: "/a:/b"}, 2,
			`3 faults: TRUSTSTORES_PATHS is not set, want absolute paths separated by ":"; ` +
				`KEYSTORE_SOURCE_PATHS has "k.p12" as entry 1, want the absolute path of a file; ` +
				`KEYSTORE_SOURCE_PATHS has 1 entries and KEYSTORE_DESTINATION_PATHS has 2, want as many in each (an entry may be empty in TRUSTSTORES_PASSWORDS_PATHS only)`},
		{"an invalid path before lists of different length", map[string]string{truststoresVariable: "x:/y"}, 1,
			`2 faults: TRUSTSTORES_PATHS has "x" as entry 1, want the absolute path of a file; ` +
				`TRUSTSTORES_PATHS has 2 entries and TRUSTSTORES_PASSWORDS_PATHS has 1, want as many in each (an entry may be empty in TRUSTSTORES_PASSWORDS_PATHS only)`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			setenv(t, test.env)
			_, err := Load()
			require.EqualError(t, err, test.want)
			assert.Equal(t, test.code, ExitCode(err))
		})
	}
}

func TestWanted_anyVariable(t *testing.T) {
	setenv(t, nil)
	assert.False(t, Wanted())
	for _, v := range program.DescribeVariables(&environment{}) {
		setenv(t, map[string]string{v.Name: "/x"})
		assert.True(t, Wanted(), v.Name)
	}
}

func TestExitCode_ofOthersErrors(t *testing.T) {
	assert.Equal(t, 0, ExitCode(nil))
	assert.Equal(t, 99, ExitCode(os.ErrClosed))
	assert.Equal(t, 5, ExitCode(fmt.Errorf("after the renewal: %w", failed(codeBackup, "x"))))
	require.ErrorIs(t, failed(codeSave, "y: %w", os.ErrClosed), os.ErrClosed)
}

func TestWriteUsage_listsVariablesAndExitCodes(t *testing.T) {
	var text strings.Builder
	require.NoError(t, WriteUsage(&text))
	for _, want := range []string{
		"  TRUSTSTORES_PATHS\n      truststores (JKS, PKCS#12 or PEM); ", "  KEYSTORE_DESTINATION_PATHS\n",
		"   0  success", "  13  a keystore to copy does not exist\n", "  99  anything else\n",
	} {
		assert.Contains(t, text.String(), want)
	}
	assert.Error(t, WriteUsage(closed{}))
}

type closed struct{}

func (closed) Write([]byte) (int, error) { return 0, errors.New("closed") }
