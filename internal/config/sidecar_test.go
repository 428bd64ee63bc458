package config

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/notify"

	"github.com/certfetcher/certfetcher/internal/program"
)

func TestLoad_sidecar_defaults(t *testing.T) {
	setenv(t, map[string]string{"MODE": "sidecar"})
	got, err := Load()
	require.NoError(t, err)
	host, err := os.Hostname()
	require.NoError(t, err)
	assert.Equal(t, Sidecar{
		Enabled: true, RenewAt: 2. / 3, Seed: host, Fallback: true, TrustOverlap: -1, HealthAddress: ":8081",
	}, got.Sidecar)
	assert.Equal(t, notify.Settings{VerifyFor: 30 * time.Second, Timeout: 30 * time.Second}, got.Notify)
}

func TestLoad_modeUnset_isInit(t *testing.T) {
	setenv(t, nil)
	got, err := Load()
	require.NoError(t, err)
	assert.False(t, got.Sidecar.Enabled)
}

func TestLoad_sidecar_valuesAreReadInEveryDocumentedForm(t *testing.T) {
	setenv(t, map[string]string{
		"MODE": "Sidecar", "RENEW_BEFORE": "720h", "RENEW_TRIGGER_FILE": "/var/../run/renew", "RENEW_FALLBACK": "False",
		"UPDATE_URL": "https://h/update/", "REUSE_KEY": "true", "TRUST_OVERLAP": "0", "HEALTH_ADDR": "off", "POD_UID": "1-2-3",
		"NOTIFY_EXEC": "reload 'the app'", "NOTIFY_SIGNAL": "HUP", "NOTIFY_PROCESS": "nginx", "NOTIFY_PID_FILE": "/run/nginx.pid",
		"NOTIFY_URL": "http://127.0.0.1/reload", "NOTIFY_URL_ALLOW_REMOTE": "true", "NOTIFY_VERIFY": "localhost:8443",
		"NOTIFY_VERIFY_SERVER_NAME": "app", "NOTIFY_VERIFY_FOR": "5s", "NOTIFY_TIMEOUT": "1m",
	})
	got, err := Load()
	require.NoError(t, err)
	assert.Equal(t, Sidecar{
		Enabled: true, RenewAt: 2. / 3, RenewBefore: 720 * time.Hour, Seed: "1-2-3", TriggerFile: "/run/renew",
		UpdateURL: "https://h/update/", ReuseKey: true,
	}, got.Sidecar)
	assert.Equal(t, notify.Settings{
		Exec: "reload 'the app'", Signal: "HUP", Process: "nginx", PIDFile: "/run/nginx.pid", URL: "http://127.0.0.1/reload", AllowRemote: true,
		Verify: "localhost:8443", VerifyServerName: "app", VerifyFor: 5 * time.Second, Timeout: time.Minute,
	}, got.Notify)
}

func TestLoad_renewAt_isAShare(t *testing.T) {
	for text, want := range map[string]float64{"2/3": 2. / 3, "0.66": 0.66, "66%": 0.66, " 1 / 2 ": 0.5, ".5": 0.5, "99.9%": 0.999} {
		setenv(t, map[string]string{"RENEW_AT": text})
		got, err := Load()
		require.NoError(t, err, text)
		assert.InDelta(t, want, got.Sidecar.RenewAt, 1e-9, text)
	}
	for _, text := range []string{"0", "1", "100%", "3/2", "1/0", "0/0", "x", "x/y", "-1/-2", "NaN", "1e-1", "1/2%", "2", "66", "/", "%", "0x1/2"} {
		setenv(t, map[string]string{"RENEW_AT": text})
		_, err := Load()
		assert.EqualError(t, err, `RENEW_AT has "`+text+`", want a share of the certificate's life between 0 and 1, such as 2/3, 0.66 or 66%`)
	}
}

func TestLoad_sidecar_faults(t *testing.T) {
	url := "want an https:// URL with a host and without user, query or fragment"
	for name, row := range map[string]struct {
		changes map[string]string
		want    string
	}{
		"unknown mode":     {map[string]string{"MODE": "daemon"}, `MODE has "daemon", want init or sidecar`},
		"days":             {map[string]string{"RENEW_BEFORE": "30d"}, `RENEW_BEFORE has "30d" (write 720h), want a duration such as 720h, more than 0`},
		"negative overlap": {map[string]string{"TRUST_OVERLAP": "-1h"}, `TRUST_OVERLAP has "-1h", want a duration such as 48h; 0 for not at all`},
		"relative trigger": {map[string]string{"RENEW_TRIGGER_FILE": "renew"}, `RENEW_TRIGGER_FILE has "renew", want an absolute path`},
		"trigger that is published": {map[string]string{"OUTPUT_PATH": "/certs/", "RENEW_TRIGGER_FILE": "/certs/keystore.p12"},
			`RENEW_TRIGGER_FILE has "/certs/keystore.p12" (certfetcher publishes files of such names there), want an absolute path`},
		"address without a port":    {map[string]string{"HEALTH_ADDR": "localhost"}, `HEALTH_ADDR has "localhost", want [host]:port, or off`},
		"address with a named port": {map[string]string{"HEALTH_ADDR": ":http"}, `HEALTH_ADDR has ":http", want [host]:port, or off`},
		"update URL in the clear":   {map[string]string{"UPDATE_URL": "http://h/"}, `UPDATE_URL has "http://h/" (the private key must not travel in the clear), ` + url},
		"no way to renew": {map[string]string{"MODE": "sidecar", "REQUEST_URL": "https://h/enrol", "RENEW_FALLBACK": "false"},
			`UPDATE_URL is not set, and does not follow from a REQUEST_URL that does not end in /certificate/, ` + url},
		"no time to look": {map[string]string{"NOTIFY_VERIFY_FOR": "0s"}, `NOTIFY_VERIFY_FOR has "0s", want a duration such as 30s, more than 0`},
	} {
		t.Run(name, func(t *testing.T) {
			setenv(t, row.changes)
			_, err := Load()
			require.EqualError(t, err, row.want)
			assert.Equal(t, PartClient, err.(Faults).First())
		})
	}
}

func TestNewFault_knowsTheVariablesPart(t *testing.T) {
	assert.Equal(t, Fault{PartClient, "NOTIFY_URL", "cannot be used: not a URL"}, NewFault("NOTIFY_URL", "cannot be used: not a URL"))
	assert.Equal(t, PartTLS, NewFault("KEYSTORE_PATH", "").Part)
	assert.Panics(t, func() { NewFault("NOTIFY_MAIL", "") })
}

// As in a container without a single variable, where unset is not the same as empty to os.LookupEnv.
func TestLoad_nothingSet_tellsEveryVariableThatIsNeeded(t *testing.T) {
	for _, v := range program.DescribeVariables(&environment{}) {
		t.Setenv(v.Name, "") // restores it afterwards
		require.NoError(t, os.Unsetenv(v.Name))
	}
	_, err := Load()
	var faults Faults
	require.ErrorAs(t, err, &faults)
	var names []string
	for _, f := range faults {
		names = append(names, f.Variable)
	}
	assert.Equal(t, []string{"CA_NAME", "OUTPUT_PATH", "COMMON_NAME", "ORGANIZATION", "STATE", "COUNTRY", "KEYSTORE_PATH", "TRUSTSTORE_PATH"}, names)
}
