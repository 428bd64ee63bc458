package program

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

var knownNames = []string{
	"OUTPUT_TYPE", "OUTPUT_PATH", "RENEW_AT", "RENEW_BEFORE", "KEYSTORE_PATH", "KEYSTORE_PASSWORD",
	"KEYSTORE_PASSWORD_FILE",
	"TRUSTSTORE_PATH", "MODE", "STATE", "SANS", "HEALTH_ADDR", "COMMON_NAME", "LOCATION",
	"REQUEST_URL", "caName", "issuerDN", "iak", "rv",
}

func TestClosest_misspelt_isFound(t *testing.T) {
	for written, want := range map[string]string{
		"OUTPUT_TYP": "OUTPUT_TYPE", "RENEWAT": "RENEW_AT", "output_type": "OUTPUT_TYPE",
		"OUTPUT-TYPE": "OUTPUT_TYPE", "OUTPUT_TPYE": "OUTPUT_TYPE",
		"KEY_STORE_PASSWORD": "KEYSTORE_PASSWORD", "KEYSTORE_PASS": "KEYSTORE_PASSWORD",
		"KEYSTORE_PASSWD":       "KEYSTORE_PASSWORD",
		"KEYSTORE_PASSWORD_FLE": "KEYSTORE_PASSWORD_FILE", "TRUSTORE_PATH": "TRUSTSTORE_PATH",
		"SAN": "SANS", "MDOE": "MODE",
		"HEALTH_ADDRESS": "HEALTH_ADDR", "RENEW_BEFOR": "RENEW_BEFORE", "COMMONNAME": "COMMON_NAME",
		"REQUEST_URI": "REQUEST_URL",
		"ca_name":     "caName", "issuerDn": "issuerDN", "IAK": "iak", "RV": "rv",
	} {
		got, ok := Closest(written, knownNames)
		assert.True(t, ok, written)
		assert.Equal(t, want, got, written)
	}
}

func TestClosest_otherWords_areLeftAlone(t *testing.T) {
	for _, written := range []string{
		"STAGE", "MODEL", "NODE", "CODE", "ROTATION", "INPUT_PATH", "INPUT_TYPE", "KEYSTORE_TYPE",
		"OUTPUT", "RENEW", "REQUEST_ID", "SERVER_PORT",
		"LANG", "JAVA_OPTS", "X", "", "url", "iv", "name",
	} {
		got, ok := Closest(written, knownNames)
		assert.False(t, ok, "%s → %s", written, got)
	}
}

func TestMisspelt_injectedAndForeignNames_areNotWarnedOf(t *testing.T) {
	for _, name := range []string{
		"REQUEST_URL_SERVICE_HOST", "HEALTH_PORT", "RENEW_AT_PORT", "MODE_SERVICE_PORT_HTTPS",
		"SANS_PORT_8443_TCP", "SANS_PORT_8443_TCP_ADDR",
		"STATE_PORT", "HTTPS_PROXY", "https_proxy", "GODEBUG", "RENEW_AT", "KUBERNETES_SERVICE_HOST",
	} {
		t.Setenv(name, "x")
	}
	names := append([]string{"HEALTH_PORTS", "RENEW_PORT", "GODEBUGS", "STATE_PORTS"}, knownNames...)
	assert.Empty(t, FindMisspelt(names))
	t.Setenv("OUTPUT_TYP", "")
	assert.Empty(t, FindMisspelt(names), "an empty variable counts as unset")
	t.Setenv("OUTPUT_TYP", "JKS")
	t.Setenv("MDOE", "sidecar")
	t.Setenv("COMMON_NAME_FILE", "/run/secrets/name")
	assert.Equal(t, []Misspelling{{"COMMON_NAME_FILE", "COMMON_NAME"}, {"MDOE", "MODE"},
		{"OUTPUT_TYP", "OUTPUT_TYPE"}}, FindMisspelt(names))
	assert.Equal(t, "is not known and has no effect: did you mean MODE?", FindMisspelt(names)[1].Problem())
}

func TestNames_haveTheTwinsOfSecrets(t *testing.T) {
	assert.Equal(t, []string{"T_ADDRESS", "T_PASSWORD", "T_PASSWORD_FILE", "T_COMMAND"}, VariableNames(tested)[:4])
}
