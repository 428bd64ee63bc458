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

func TestOutdated_requestedAsNow_stays_whateverTheCAChanged(t *testing.T) {
	cfg := configuration(t, nil)
	assert.Empty(t, enroller(cfg).whyOutdated(recorded(t, cfg)))
	again := configuration(t, map[string]string{"SANS": "192.0.2.1,app.EXAMPLE.org",
		"REQUEST_URL": "https://elsewhere.example.org/v1/certificate/"})
	assert.Empty(t, enroller(again).whyOutdated(recorded(t, cfg)),
		"neither order nor case nor the address of the CertService")
}

func TestOutdated_requestedDifferentlyNow_saysWhatDiffers(t *testing.T) {
	bundle := recorded(t, configuration(t, nil))
	for variable, row := range map[string]struct{ value, want string }{
		"COMMON_NAME": {"b.example.org",
			`the certificate on the volume was requested with the subject ` +
				`"CN=app.example.org,C=SE,ST=Skane,O=Example", ` +
				`the configuration asks for "CN=b.example.org,C=SE,ST=Skane,O=Example"`},
		"SANS": {"app.example.org",
			`the certificate on the volume was requested with the names ["DNS:app.example.org" ` +
				`"IP Address:192.0.2.1"], ` +
				`SANS asks for ["DNS:app.example.org"]`},
		"KEY_ALGORITHM": {"ECDSA-P384",
			`the certificate on the volume was requested with a key of "ECDSA-P256", ` +
				`KEY_ALGORITHM asks for "ECDSA-P384"`},
		"CA_NAME": {"RA2", `the certificate on the volume was requested from the CA "RA", CA_NAME asks for "RA2"`},
	} {
		t.Run(variable, func(t *testing.T) {
			assert.Equal(t, row.want,
				enroller(configuration(t, map[string]string{variable: row.value})).whyOutdated(bundle))
		})
	}
}

// What the record says about a certificate is never taken for what the certificate is.
func TestOutdated_recordReplacesNoCheck(t *testing.T) {
	cfg := configuration(t, nil)
	for name, row := range map[string]struct {
		harm func(b *output.Bundle)
		want string
	}{
		"another anchor": {func(b *output.Bundle) { b.Trusted = recorded(t, cfg).Trusted },
			"does not verify: the chain does not verify to a trusted certificate"},
		"another chain": {func(b *output.Bundle) { b.Chain = append(b.Chain[:1:1], recorded(t, cfg).Chain[1]) },
			"does not verify: the chain is broken"},
		"expired": {func(b *output.Bundle) { b.Chain[0].NotAfter = time.Now().Add(-time.Minute) },
			"two thirds of the certificate's life have gone by"},
		"another's": {func(b *output.Bundle) { b.Note = recorded(t, cfg).Note }, "has the subject"},
	} {
		t.Run(name, func(t *testing.T) {
			b := recorded(t, cfg)
			row.harm(b)
			assert.Contains(t, enroller(cfg).whyOutdated(b), row.want)
		})
	}
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
