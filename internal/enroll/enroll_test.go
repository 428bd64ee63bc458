package enroll

import (
	"cmp"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/client"
	"github.com/certfetcher/certfetcher/keygen"
	"github.com/certfetcher/certfetcher/output"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// configuration is what a manifest gives, with the changes by variable.
func configuration(t *testing.T, changes map[string]string) Settings {
	t.Helper()
	value := func(name, unchanged string) string { return cmp.Or(changes[name], unchanged) }
	name := pkix.RDNSequence{
		{{Type: asn1.ObjectIdentifier{2, 5, 4, 10}, Value: "Example"}},
		{{Type: asn1.ObjectIdentifier{2, 5, 4, 8}, Value: "Skane"}},
		{{Type: asn1.ObjectIdentifier{2, 5, 4, 6}, Value: value("COUNTRY", "SE")}},
		{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: value("COMMON_NAME", "app.example.org")}},
	}
	template := &x509.CertificateRequest{}
	var err error
	template.RawSubject, err = asn1.Marshal(name)
	require.NoError(t, err)
	template.Subject.FillFromRDNSequence(&name)
	for _, san := range strings.Split(value("SANS", "APP.example.org,192.0.2.1"), ",") {
		if ip := net.ParseIP(san); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, san)
		}
	}
	s := Settings{
		Request: client.Config{URL: value("REQUEST_URL", "https://certservice/v1/certificate/"),
			CAName: value("CA_NAME", "RA")},
		Certificate: Certificate{KeyAlgorithm: value("KEY_ALGORITHM", "ECDSA-P256"), Template: template},
		ForceEnroll: changes["FORCE_ENROLL"] == "true",
	}
	if changes["MODE"] == "sidecar" {
		s.Renewal = &Renewal{Fallback: true, TrustOverlap: -1}
	}
	return s
}

// issued is a bundle such as a CA would have answered to the configuration.
func issued(t *testing.T, cfg Settings, change func(*x509.Certificate)) *output.Bundle {
	t.Helper()
	authority := fixture.Must(fixture.NewCA("Test"))
	authority.Change = change
	key, err := keygen.GenerateKey(cfg.Certificate.KeyAlgorithm)
	require.NoError(t, err)
	csr, err := keygen.CreateCSR(cfg.Certificate.Template, key)
	require.NoError(t, err)
	chain := fixture.Must(authority.Issue(csr))
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
			leaf.RawSubject = fixture.Must(asn1.Marshal(rdns))
		},
		"with names in another case": func(leaf *x509.Certificate) { leaf.DNSNames = []string{"app.EXAMPLE.org"} },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := configuration(t, nil)
			e := &Enroller{Config: cfg, Log: slog.New(slog.DiscardHandler), Now: time.Now}
			assert.Empty(t, e.whyOutdated(issued(t, cfg, change)))
		})
	}
}

func TestOutdated_commonNameAddedAsDNSName_stays(t *testing.T) {
	cfg := configuration(t, map[string]string{"SANS": "192.0.2.1"})
	e := &Enroller{Config: cfg, Now: time.Now}
	bundle := issued(t, cfg, func(leaf *x509.Certificate) { leaf.DNSNames = []string{"app.example.org"} })
	assert.Empty(t, e.whyOutdated(bundle))
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
		}, want: `the certificate on the volume has the subject "CN=app.example.org", the ` +
			`configuration asks for "CN=app.example.org,C=SE,ST=Skane,O=Example"`},
		"a name more": {change: func(l *x509.Certificate) { l.DNSNames = append(l.DNSNames, "b.example.org") },
			want: `the certificate on the volume has the names ["DNS:app.example.org" "DNS:b.example.org" "IP ` +
				`Address:192.0.2.1"], SANS asks for ["DNS:app.example.org" "IP Address:192.0.2.1"]`},
		"a name less": {change: func(l *x509.Certificate) { l.IPAddresses = nil },
			want: `the certificate on the volume has the names ["DNS:app.example.org"], SANS ` +
				`asks for ["DNS:app.example.org" "IP Address:192.0.2.1"]`},
		"two thirds of its life gone": {change: func(l *x509.Certificate) {
			l.NotBefore,
				l.NotAfter = at(-2*time.Hour), at(time.Hour)
		},
			want: fmt.Sprintf("two thirds of the certificate's life have gone by (since %s, valid until %s)",
				at(0).UTC().Format(time.RFC3339), at(time.Hour).UTC().Format(time.RFC3339))},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := configuration(t, row.changes)
			e := &Enroller{Config: cfg, Now: time.Now}
			assert.Equal(t, row.want, e.whyOutdated(issued(t, cfg, row.change)))
		})
	}
}

func TestOutdated_otherKeyAlgorithm_isSaid(t *testing.T) {
	cfg := configuration(t, nil)
	bundle := issued(t, cfg, nil)
	cfg.Certificate.KeyAlgorithm = "RSA-2048"
	e := &Enroller{Config: cfg, Now: time.Now}
	assert.Equal(t, "the key on the volume is ECDSA-P256, KEY_ALGORITHM asks for RSA-2048", e.whyOutdated(bundle))
}

func TestOutdated_foreignAnchor_doesNotVerify(t *testing.T) {
	cfg := configuration(t, nil)
	bundle := issued(t, cfg, nil)
	bundle.Trusted = issued(t, cfg, nil).Trusted
	e := &Enroller{Config: cfg, Now: time.Now}
	assert.Contains(t, e.whyOutdated(bundle), "the certificate on the volume does not verify: ")
}

func TestStageOf_errorsOfTheStages_areTheContractsCodes(t *testing.T) {
	for name, row := range map[string]struct {
		err  error
		want Stage
	}{
		"status": {&Error{Stage: requestStage(&client.StatusError{StatusCode: 500}),
			Err: errors.New("x")}, StageCertService},
		"no answer": {&Error{Stage: requestStage(fmt.Errorf("wrapped: %w", &client.AnswerError{})),
			Err: errors.New("x")}, StageCertService},
		"connection": {&Error{Stage: requestStage(&client.ConnectionError{Err: errors.New("refused")}),
			Err: errors.New("x")}, StageConnection},
		"key not encodable": {&Error{Stage: outputStage(&output.EncodeError{Key: true, Err: errors.New("x")}),
			Err: errors.New("x")}, StageKeyEncoding},
		"store not buildable": {&Error{Stage: outputStage(&output.EncodeError{Err: errors.New("x")}),
			Err: errors.New("x")}, StageConversion},
		"file":          {&Error{Stage: outputStage(&output.FileError{}), Err: errors.New("x")}, StageFile},
		"foreign error": {errors.New("x"), StageOther},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, row.want, StageOf(fmt.Errorf("run: %w", row.err))) })
	}
}
