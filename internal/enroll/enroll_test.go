package enroll

import (
	"cmp"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/client"
	pkicmp "github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/keygen"
	"github.com/certfetcher/certfetcher/output"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
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

// What a CA may make of a request.
var changes = map[string]func(leaf *x509.Certificate){
	"nothing": func(*x509.Certificate) {},
	"the subject reversed, as EJBCA does": func(leaf *x509.Certificate) {
		var rdns []asn1.RawValue
		fixture.Must(asn1.Unmarshal(leaf.RawSubject, &rdns))
		slices.Reverse(rdns)
		leaf.RawSubject = fixture.Must(asn1.Marshal(rdns))
	},
	"names in another case": func(leaf *x509.Certificate) { leaf.DNSNames = []string{"app.EXAMPLE.org"} },
	"the common name as DNS name": func(leaf *x509.Certificate) {
		leaf.DNSNames = []string{"app.example.org"}
	},
	"another subject": func(leaf *x509.Certificate) {
		leaf.RawSubject, leaf.Subject = nil, pkix.Name{CommonName: "app.example.org"}
	},
	"a name more": func(leaf *x509.Certificate) { leaf.DNSNames = append(leaf.DNSNames, "b.example.org") },
	"a name less": func(leaf *x509.Certificate) { leaf.IPAddresses = nil },
	"a life from two hours ago to the next": func(leaf *x509.Certificate) {
		leaf.NotBefore, leaf.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(time.Hour)
	},
}

var aTime = regexp.MustCompile(`\d{4}-\S+Z`)

// Whether a set on the volume stays that was issued for a configuration.
func TestOutdated(t *testing.T) {
	golden.Play(t, "outdated/*.txt", func(t *testing.T, _, commands string) string {
		now := time.Now().Truncate(time.Second)
		cfg, change := configuration(t, nil), "nothing"
		var b *output.Bundle
		for command := range strings.Lines(commands) {
			verb, rest, _ := strings.Cut(strings.TrimSpace(command[2:]), ": ")
			name, value, _ := strings.Cut(rest, "=")
			switch verb {
			case "requested", "asked for now": // with a variable otherwise
				cfg = configuration(t, map[string]string{name: value})
				continue
			case "the CA gives":
				require.Contains(t, changes, rest)
				change = rest
				continue
			}
			if b == nil {
				b = issued(t, cfg, changes[change])
			}
			switch verb {
			case "on the volume":
			case "accepted and recorded, although the CA changed subject and names":
				b = recorded(t, cfg)
			case "trusting another's CA":
				b.Trusted = recorded(t, cfg).Trusted
			case "with another's chain":
				b.Chain = append(b.Chain[:1:1], recorded(t, cfg).Chain[1])
			case "with another's record":
				b.Note = recorded(t, cfg).Note
			case "expired":
				b.Chain[0].NotAfter = now.Add(-time.Minute)
			default:
				t.Fatalf("unknown command %q", command)
			}
		}
		why := aTime.ReplaceAllStringFunc(enroller(cfg).whyOutdated(b), func(at string) string {
			return fmt.Sprint(fixture.Must(time.Parse(time.RFC3339, at)).Sub(now).Round(time.Minute), " from now")
		})
		return cmp.Or(why, "it stays")
	})
}

func TestExplainRequest_policyThatRefusesByACMPMessage_saysWhatToTry(t *testing.T) {
	refusal := &pkicmp.StatusError{Status: pkicmp.StatusRejection, Text: "Not allowed by the policy: CA \"RA\""}
	err := order{Enroller: &Enroller{}}.explainRequest(t.Context(), "requesting", fmt.Errorf("x: %w", refusal))
	assert.Equal(t, StageCertService, StageOf(err))
	assert.ErrorContains(t, err, ": have its policy extended for this client, or request what it allows (SANS, ")
}

func TestStageOf_errorsOfTheStages_areTheContractsCodes(t *testing.T) {
	asked := func(err error) error {
		return order{Enroller: &Enroller{}}.explainRequest(t.Context(), "asking", err)
	}
	for name, row := range map[string]struct {
		err  error
		want Stage
	}{
		"status":     {asked(&client.StatusError{StatusCode: 500}), StageCertService},
		"no answer":  {asked(fmt.Errorf("wrapped: %w", &client.AnswerError{})), StageCertService},
		"connection": {asked(&client.ConnectionError{Err: errors.New("refused")}), StageConnection},
		"token":      {asked(&client.TokenError{Err: errors.New("x")}), StageTLSConfiguration},
		"policy":     {asked(&client.StatusError{StatusCode: 403}), StageCertService},
		"401":        {asked(&client.StatusError{StatusCode: 401}), StageConnection},
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
