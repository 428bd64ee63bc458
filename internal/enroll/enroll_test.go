package enroll

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/client"
	"github.com/certfetcher/certfetcher/internal/config"
	"github.com/certfetcher/certfetcher/keygen"
	"github.com/certfetcher/certfetcher/output"
	"github.com/certfetcher/certfetcher/test/ca"
)

// configuration is what the environment of an ONAP manifest gives, with the changes.
func configuration(t *testing.T, changes map[string]string) *config.Fetcher {
	t.Helper()
	values := map[string]string{
		"OUTPUT_PATH": "/var/certs", "CA_NAME": "RA", "KEY_ALGORITHM": "ECDSA-P256",
		"COMMON_NAME": "app.example.org", "ORGANIZATION": "Example", "STATE": "Skane", "COUNTRY": "SE",
		"SANS": "APP.example.org,192.0.2.1", "KEYSTORE_PATH": "/ks", "TRUSTSTORE_PATH": "/ts",
	}
	for name, value := range changes {
		values[name] = value
	}
	for name, value := range values {
		t.Setenv(name, value)
	}
	cfg, err := config.Load()
	require.NoError(t, err)
	return cfg
}

func TestConfig_andKeygen_knowTheSameAlgorithms(t *testing.T) {
	for _, name := range keygen.Algorithms() {
		assert.Equal(t, name, configuration(t, map[string]string{"KEY_ALGORITHM": name}).Certificate.KeyAlgorithm)
	}
}

// issued is a bundle such as a CA would have answered to the configuration.
func issued(t *testing.T, cfg *config.Fetcher, change func(*x509.Certificate)) *output.Bundle {
	t.Helper()
	authority, err := ca.New("Test")
	require.NoError(t, err)
	authority.Change = change
	key, err := keygen.GenerateKey(cfg.Certificate.KeyAlgorithm)
	require.NoError(t, err)
	csr, err := keygen.CreateCSR(cfg.Certificate.Template, key)
	require.NoError(t, err)
	chain, err := authority.Issue(csr)
	require.NoError(t, err)
	return &output.Bundle{Key: key, Chain: chain, Trusted: []*x509.Certificate{authority.Root}}
}

func TestOutdated_sameCertificate_stays(t *testing.T) {
	for name, change := range map[string]func(*x509.Certificate){
		"as it was asked for": nil,
		"with the RDNs reversed, as EJBCA does": func(leaf *x509.Certificate) {
			var rdns []asn1.RawValue
			_, err := asn1.Unmarshal(leaf.RawSubject, &rdns)
			require.NoError(t, err)
			for i := range len(rdns) / 2 {
				rdns[i], rdns[len(rdns)-1-i] = rdns[len(rdns)-1-i], rdns[i]
			}
			leaf.RawSubject, err = asn1.Marshal(rdns)
			require.NoError(t, err)
		},
		"with names in another case": func(leaf *x509.Certificate) { leaf.DNSNames = []string{"app.EXAMPLE.org"} },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := configuration(t, nil)
			e := &Enroller{Config: cfg, Log: slog.New(slog.DiscardHandler), Now: time.Now}
			assert.Empty(t, e.outdated(issued(t, cfg, change)))
		})
	}
}

func TestOutdated_commonNameAddedAsDNSName_stays(t *testing.T) {
	cfg := configuration(t, map[string]string{"SANS": "192.0.2.1"})
	e := &Enroller{Config: cfg, Now: time.Now}
	bundle := issued(t, cfg, func(leaf *x509.Certificate) { leaf.DNSNames = []string{"app.example.org"} })
	assert.Empty(t, e.outdated(bundle))
}

func TestOutdated_another_saysWhatDiffers(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	at := now.Add
	for name, row := range map[string]struct {
		changes map[string]string
		change  func(*x509.Certificate)
		want    string
	}{
		"another subject": {change: func(l *x509.Certificate) {
			l.RawSubject, l.Subject = nil, pkix.Name{CommonName: "app.example.org"}
		}, want: `the certificate on the volume has the subject "CN=app.example.org", the configuration asks for "CN=app.example.org,C=SE,ST=Skane,O=Example"`},
		"a name more": {change: func(l *x509.Certificate) { l.DNSNames = append(l.DNSNames, "b.example.org") },
			want: `the certificate on the volume has the names ["DNS:app.example.org" "DNS:b.example.org" "IP Address:192.0.2.1"], SANS asks for ["DNS:app.example.org" "IP Address:192.0.2.1"]`},
		"a name less": {change: func(l *x509.Certificate) { l.IPAddresses = nil },
			want: `the certificate on the volume has the names ["DNS:app.example.org"], SANS asks for ["DNS:app.example.org" "IP Address:192.0.2.1"]`},
		"two thirds of its life gone": {change: func(l *x509.Certificate) { l.NotBefore, l.NotAfter = at(-2*time.Hour), at(time.Hour) },
			want: fmt.Sprintf("two thirds of the certificate's life have gone by (since %s, valid until %s)",
				at(0).UTC().Format(time.RFC3339), at(time.Hour).UTC().Format(time.RFC3339))},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := configuration(t, row.changes)
			e := &Enroller{Config: cfg, Now: time.Now}
			assert.Equal(t, row.want, e.outdated(issued(t, cfg, row.change)))
		})
	}
}

func TestOutdated_otherKeyAlgorithm_isSaid(t *testing.T) {
	cfg := configuration(t, nil)
	bundle := issued(t, cfg, nil)
	cfg.Certificate.KeyAlgorithm = "RSA-2048"
	e := &Enroller{Config: cfg, Now: time.Now}
	assert.Equal(t, "the key on the volume is ECDSA-P256, KEY_ALGORITHM asks for RSA-2048", e.outdated(bundle))
}

func TestOutdated_foreignAnchor_doesNotVerify(t *testing.T) {
	cfg := configuration(t, nil)
	bundle := issued(t, cfg, nil)
	bundle.Trusted = issued(t, cfg, nil).Trusted
	e := &Enroller{Config: cfg, Now: time.Now}
	assert.Contains(t, e.outdated(bundle), "the certificate on the volume does not verify: ")
}

func TestOutputConfig_allThatIsConfigured_isHandedOn(t *testing.T) {
	assert.Equal(t, output.Config{
		Dir: "/d", Types: []string{"PEM"}, Layout: "inplace", KeystoreAlias: "a", TruststoreAliasPrefix: "b", P12Profile: "legacy",
		FileMode: 0o600, Group: "g", KeystorePassword: "k", TruststorePassword: "t",
	}, outputConfig(&config.Fetcher{Output: config.Output{
		Dir: "/d", Types: []string{"PEM"}, Layout: "inplace", KeystoreAlias: "a", TruststoreAliasPrefix: "b", P12Profile: "legacy",
		FileMode: 0o600, Group: "g", KeystorePassword: "k", TruststorePassword: "t",
	}}))
}

func TestStageOf_errorsOfTheStages_areTheContractsCodes(t *testing.T) {
	for name, row := range map[string]struct {
		err  error
		want Stage
	}{
		"status":              {&Error{Stage: requestStage(&client.StatusError{StatusCode: 500}), Err: errors.New("x")}, StageCertService},
		"no answer":           {&Error{Stage: requestStage(fmt.Errorf("wrapped: %w", &client.AnswerError{})), Err: errors.New("x")}, StageCertService},
		"connection":          {&Error{Stage: requestStage(&client.ConnectionError{Err: errors.New("refused")}), Err: errors.New("x")}, StageConnection},
		"key not encodable":   {&Error{Stage: outputStage(&output.EncodeError{Key: true, Err: errors.New("x")}), Err: errors.New("x")}, StageKeyEncoding},
		"store not buildable": {&Error{Stage: outputStage(&output.EncodeError{Err: errors.New("x")}), Err: errors.New("x")}, StageConversion},
		"file":                {&Error{Stage: outputStage(&output.FileError{}), Err: errors.New("x")}, StageFile},
		"foreign error":       {errors.New("x"), StageOther},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, row.want, StageOf(fmt.Errorf("run: %w", row.err))) })
	}
}
