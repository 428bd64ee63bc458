package docs

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"

	"github.com/certfetcher/certfetcher/internal/policy"
	"github.com/certfetcher/certfetcher/test/fixture"
)

const policyDocument = "docs/policy.md"

func TestPolicies_parse(t *testing.T) {
	found := 0
	for _, b := range readDocument(t, filepath.Join(root, policyDocument)).blocks {
		if b.language == "yaml" {
			found++
			_, err := policy.Parse([]byte(b.text))
			assert.NoError(t, err, b.place)
		}
	}
	assert.Greater(t, found, 5)
}

var patternRow = regexp.MustCompile("^\\| `(dns|wildcards|ip|uri|email|commonName|organization)` \\| `([^`]+)` " +
	`\| ([^|]+) \| ([^|]+) \|$`)

// The examples of patterns are what is decided for the account payments/api.
func TestPolicies_patterns_allowWhatTheyShow(t *testing.T) {
	rows := 0
	for line := range strings.Lines(readAll(t, policyDocument)) {
		row := patternRow.FindStringSubmatch(strings.TrimSpace(line))
		if row == nil {
			continue
		}
		rows++
		for column, allowed := range map[int]bool{3: true, 4: false} {
			names := codeSpan.FindAllString(row[column], -1)
			assert.NotEmpty(t, names, line)
			for _, name := range names {
				d := decideExample(t, row[1], row[2], strings.Trim(name, "`"))
				assert.Equal(t, allowed, d.Allowed, "%s %s: %s: %s", row[1], row[2], name, d.Reason)
			}
		}
	}
	assert.Greater(t, rows, 10)
}

func decideExample(t *testing.T, kind, pattern, name string) policy.Decision {
	t.Helper()
	allow := map[string]any{kind: []string{pattern}}
	if kind == "organization" {
		allow = map[string]any{"subject": allow}
	}
	text := fixture.Must(json.Marshal(map[string]any{"rules": []any{map[string]any{"name": "example",
		"clients": []any{map[string]string{"serviceAccount": "payments/*"}}, "cas": []string{"RA"},
		"operations": []string{"enroll"}, "allow": allow}}})) // JSON is YAML
	rules, err := policy.Parse(text)
	require.NoError(t, err)
	template := &x509.CertificateRequest{}
	switch kind {
	case "dns", "wildcards":
		template.DNSNames = []string{name}
	case "ip":
		template.IPAddresses = []net.IP{net.ParseIP(name)}
	case "uri":
		template.URIs = []*url.URL{{Opaque: name}} // which is written as it is, behind no scheme
	case "email":
		template.EmailAddresses = []string{name}
	case "commonName":
		template.Subject.CommonName = name
	case "organization":
		template.Subject = pkix.Name{Organization: []string{name}}
	}
	account := &policy.ServiceAccount{Namespace: "payments", Name: "api"}
	return rules.Decide(policy.Question{Client: policy.Client{Account: account}, CA: "RA", Operation: policy.Enroll,
		Asked: ask(t, template), At: time.Now()}, nil)
}

// The recipes do what they are for.
func TestPolicies_recipes(t *testing.T) {
	rules := map[string]*policy.Policy{}
	for _, b := range readDocument(t, filepath.Join(root, policyDocument)).blocks {
		if b.language == "yaml" {
			p := fixture.Must(policy.Parse([]byte(b.text)))
			for _, rule := range p.Rules {
				rules[rule.Name] = p
			}
		}
	}
	station := pkix.Name{CommonName: "bs42", Organization: []string{"Vendor Inc."}, SerialNumber: "BS-42"}
	shop := pkix.Name{CommonName: "x", Organization: []string{"Example"}, OrganizationalUnit: []string{"Shop"}}
	admin := pkix.Name{CommonName: "pki-admin-1", Organization: []string{"Example"}}
	token := func(namespace, name string) policy.Client {
		return policy.Client{Account: &policy.ServiceAccount{Namespace: namespace, Name: name}}
	}
	for _, row := range []struct {
		rule      string
		client    policy.Client
		operation policy.Operation
		asks      *x509.CertificateRequest
		allowed   bool
	}{
		{"payments", token("payments", "api"), policy.Enroll, host("api.payments.svc"), true},
		{"payments", token("shop", "api"), policy.Enroll, host("api.payments.svc"), false},
		{"workloads", token("shop", "web"), policy.Update, identity("spiffe://example.org/ns/shop/sa/web"), true},
		{"workloads", token("shop", "web"), policy.Update, identity("spiffe://example.org/ns/shop/sa/db"), false},
		{"shop", certified(shop), policy.Enroll, host("www.shop.example.org"), true},
		{"shop", certified(station), policy.Enroll, host("www.shop.example.org"), false},
		{"gateway", token("ingress", "gateway"), policy.Enroll, host("*.apps.example.org"), true},
		{"gateway", token("ingress", "other"), policy.Enroll, host("*.apps.example.org"), false},
		{"base stations", certified(station), policy.CMP, host("bs42.ran.example.org"), true},
		{"base stations", certified(station), policy.CMP, host("bs43.ran.example.org"), false},
		{"base stations", certified(shop), policy.CMP, host("bs42.ran.example.org"), false},
		{"admins", certified(admin), policy.Reload, nil, true},
		{"admins", certified(shop), policy.Reload, nil, false},
		{"certificates", certified(pkix.Name{CommonName: "a.b.c"}), policy.CMP, host("evil.org"), true},
		{"certificates", certified(pkix.Name{CommonName: "a.b.c"}), policy.Revoke, nil, false},
		{"certificates", certified(pkix.Name{CommonName: "a b"}), policy.Enroll, host("evil.org"), false},
	} {
		q := policy.Question{Client: row.client, CA: "RA", Operation: row.operation, At: time.Now()}
		if row.rule == "base stations" {
			q.CA = "RAN"
		}
		if row.asks != nil {
			q.Asked = ask(t, row.asks)
		}
		require.NotNil(t, rules[row.rule], row.rule)
		d := rules[row.rule].Decide(q, nil)
		assert.Equal(t, row.allowed, d.Allowed, "%s: %s: %v: %s", row.rule, row.operation, row.asks, d.Reason)
	}
}

func host(name string) *x509.CertificateRequest {
	return &x509.CertificateRequest{DNSNames: []string{name}}
}

func identity(uri string) *x509.CertificateRequest {
	return &x509.CertificateRequest{URIs: []*url.URL{fixture.Must(url.Parse(uri))}}
}

func certified(name pkix.Name) policy.Client {
	subject := fixture.Must(asn1.Marshal(name.ToRDNSequence()))
	return policy.Client{Certificate: &x509.Certificate{RawSubject: subject}}
}

func ask(t *testing.T, template *x509.CertificateRequest) *policy.Asked {
	t.Helper()
	der := fixture.Must(x509.CreateCertificateRequest(rand.Reader, template, fixture.NewKey("P-256")))
	asked, err := policy.ReadCSR(fixture.Must(x509.ParseCertificateRequest(der)))
	require.NoError(t, err)
	return asked
}

func TestPolicies_comparison_hasAllRows(t *testing.T) {
	var peers struct{ Rows []any }
	data := fixture.Must(os.ReadFile(filepath.Join(root, "internal/policy/testdata/peers.yaml")))
	require.NoError(t, yaml.Unmarshal(data, &peers))
	assert.Contains(t, readAll(t, policyDocument), fmt.Sprintf("has %d decisions", len(peers.Rows)))
}
