package enroll

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/output"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// recorded is a set that was accepted for the configuration although the CA changed subject and names.
func recorded(t *testing.T, cfg Settings) *output.Bundle {
	t.Helper()
	b := issued(t, cfg, func(leaf *x509.Certificate) {
		leaf.RawSubject, leaf.Subject = nil, pkix.Name{CommonName: "app.example.org",
			OrganizationalUnit: []string{"Policy"}}
		leaf.DNSNames = append(leaf.DNSNames, "added.example.org")
	})
	b.Note = enroller(cfg).note(b.Chain[0])
	return b
}

func enroller(cfg Settings) *Enroller {
	return &Enroller{Config: cfg, Log: slog.New(slog.DiscardHandler), Now: time.Now}
}

func TestParseRecord_whatIsNotOurs_isNone(t *testing.T) {
	cfg := configuration(t, nil)
	note := recorded(t, cfg).Note
	record, err := ParseRecord(note)
	require.NoError(t, err)
	assert.Equal(t, requestedBy(cfg), record.Request)
	assert.Equal(t, cfg.Request.URL, record.AcceptedFrom)
	for name, text := range map[string]string{
		"nothing":             "",
		"cut short":           string(note[:len(note)/2]),
		"not JSON":            "-----BEGIN CERTIFICATE-----",
		"another version":     strings.Replace(string(note), `"version": 1`, `"version": 2`, 1),
		"a field more":        strings.Replace(string(note), `"version": 1`, `"version": 1, "more": 1`, 1),
		"another type":        strings.Replace(string(note), `"ca": "RA"`, `"ca": 1`, 1),
		"two values":          string(note) + string(note),
		"something behind it": string(note) + "x",
		"deeply nested":       strings.Repeat(`{"request":`, 20000),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseRecord([]byte(text))
			assert.Error(t, err)
		})
	}
}

func FuzzParseRecord(f *testing.F) {
	f.Add([]byte(
		`{"version":1,"certificate":"00","request":{"subject":"CN=a","sans":["DNS:a"],` +
			`"keyAlgorithm":"RSA-2048","ca":"RA"},"acceptedFrom":"https://a"}`))
	f.Add([]byte(`{"version":1,"enrolDirectly":true,"request":{"sans":["IP Address:::1","URI:a:b","email:a@b"]}}`))
	f.Fuzz(func(t *testing.T, note []byte) {
		r, err := ParseRecord(note)
		if err != nil {
			return
		}
		encoded := fixture.Must(json.Marshal(r))
		again, err := ParseRecord(encoded)
		require.NoError(t, err)
		second := fixture.Must(json.Marshal(again))
		require.True(t, bytes.Equal(encoded, second))
		require.Equal(t, r.Request.changed(again.Request), "")
	})
}
