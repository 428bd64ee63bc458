package config

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/notify"
	"github.com/certfetcher/certfetcher/internal/sidecar"
	"github.com/certfetcher/certfetcher/test/fixture"
)

func TestLoad_sidecar_defaults(t *testing.T) {
	setenv(t, map[string]string{"MODE": "sidecar"})
	got, err := Load()
	require.NoError(t, err)
	host := fixture.Must(os.Hostname())
	assert.Equal(t, sidecar.Settings{
		Enabled: true, Policy: sidecar.Policy{At: 2. / 3, Seed: host}, HealthAddress: ":8081",
	}, got.Sidecar)
	assert.Equal(t, &enroll.Renewal{Fallback: true, TrustOverlap: -1}, got.Renewal)
	assert.Equal(t, notify.Settings{VerifyFor: 30 * time.Second, Timeout: 30 * time.Second}, got.Notify)
}

func TestLoad_modeUnset_isInit(t *testing.T) {
	setenv(t, nil)
	got, err := Load()
	require.NoError(t, err)
	assert.False(t, got.Sidecar.Enabled)
	assert.Nil(t, got.Renewal)
}

func TestLoad_sidecar_valuesAreReadInEveryDocumentedForm(t *testing.T) {
	setenv(t, map[string]string{
		"MODE": "Sidecar", "RENEW_BEFORE": "720h", "RENEW_TRIGGER_FILE": "/var/../run/renew", "RENEW_FALLBACK": "False",
		"UPDATE_URL": "https://h/update/", "REUSE_KEY": "true", "TRUST_OVERLAP": "0",
		"HEALTH_ADDR": "off", "POD_UID": "1-2-3",
		"NOTIFY_EXEC": "reload 'the app'", "NOTIFY_SIGNAL": "HUP", "NOTIFY_PROCESS": "nginx",
		"NOTIFY_PID_FILE": "/run/nginx.pid",
		"NOTIFY_URL":      "http://127.0.0.1/reload", "NOTIFY_URL_ALLOW_REMOTE": "true",
		"NOTIFY_VERIFY":             "localhost:8443",
		"NOTIFY_VERIFY_SERVER_NAME": "app", "NOTIFY_VERIFY_FOR": "5s", "NOTIFY_TIMEOUT": "1m",
	})
	got, err := Load()
	require.NoError(t, err)
	assert.Equal(t, sidecar.Settings{
		Enabled: true, Policy: sidecar.Policy{At: 2. / 3, Before: 720 * time.Hour, Seed: "1-2-3"},
		TriggerFile: "/run/renew",
	}, got.Sidecar)
	assert.Equal(t, &enroll.Renewal{ReuseKey: true}, got.Renewal)
	assert.Equal(t, "https://h/update/", got.Request.UpdateURL)
	assert.Equal(t, notify.Settings{
		Exec: "reload 'the app'", Signal: "HUP", Process: "nginx", PIDFile: "/run/nginx.pid",
		URL: "http://127.0.0.1/reload", AllowRemote: true,
		Verify: "localhost:8443", VerifyServerName: "app", VerifyFor: 5 * time.Second, Timeout: time.Minute,
	}, got.Notify)
}

func TestLoad_renewAt_isAShare(t *testing.T) {
	for text, want := range map[string]float64{"2/3": 2. / 3, "0.66": 0.66, "66%": 0.66,
		" 1 / 2 ": 0.5, ".5": 0.5, "99.9%": 0.999} {
		setenv(t, map[string]string{"RENEW_AT": text})
		got, err := Load()
		require.NoError(t, err, text)
		assert.InDelta(t, want, got.Sidecar.At, 1e-9, text)
	}
}

func TestNewFault_knowsTheVariablesPart(t *testing.T) {
	assert.Equal(t, Fault{enroll.StageClientConfiguration, "NOTIFY_URL", "cannot be used: not a URL"},
		NewFault("NOTIFY_URL", "cannot be used: not a URL"))
	assert.Equal(t, enroll.StageTLSConfiguration, NewFault("KEYSTORE_PATH", "").Stage)
	assert.Panics(t, func() { NewFault("NOTIFY_MAIL", "") })
}

// As in a container without a single variable, where unset is not the same as empty to os.LookupEnv.
func TestLoad_nothingSet_tellsEveryVariableThatIsNeeded(t *testing.T) {
	for _, v := range Variables {
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
	assert.Equal(t, []string{"CA_NAME", "OUTPUT_PATH", "COMMON_NAME", "ORGANIZATION", "STATE",
		"COUNTRY", "KEYSTORE_PATH", "TRUSTSTORE_PATH"}, names)
}
