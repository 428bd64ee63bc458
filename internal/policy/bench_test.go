package policy

import (
	"crypto/x509"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const benchRules, benchClients = 1_000, 10_000

// benchDesk has 1,000 rules. With one rule for each namespace they are for different clients, else
// all of them are for each client.
func benchDesk(b *testing.B, perNamespace bool) *Policy {
	b.Helper()
	var text strings.Builder
	text.WriteString("rules:\n")
	for i := range benchRules {
		clients := "*/*"
		if perNamespace {
			clients = fmt.Sprintf("team-%d/*", i)
		}
		fmt.Fprintf(&text, `  - name: rule %d
    clients: [{serviceAccount: "%s"}, {subject: {commonName: "client-%d-*"}}]
    cas: [RA]
    operations: [enroll, update]
    allow:
      commonName: ["{serviceAccount}.team-%d.svc"]
      dns: ["{serviceAccount}.team-%d.svc", "*.team-%d.example.org"]
      uri: ["spiffe://example.org/ns/team-%d/sa/{serviceAccount}"]
`, i, clients, i, i, i, i, i)
	}
	p, err := Parse([]byte(text.String()))
	require.NoError(b, err)
	return p
}

// benchQuestions are requests of 10,000 clients of the last namespace.
func benchQuestions(b *testing.B, namespace string) []Question {
	b.Helper()
	questions := make([]Question, benchClients)
	for i := range questions {
		account := ServiceAccount{fmt.Sprintf("team-%d", benchRules-1), fmt.Sprintf("pod-%d", i)}
		r := &request{t: b, key: publicKey(b, "ECDSA-P256")}
		r.add(fmt.Sprintf("DNS:%s.%s.svc", account.Name, namespace))
		r.add(fmt.Sprintf("DNS:x%d.%s.example.org", i, namespace))
		r.add(fmt.Sprintf("URI:spiffe://example.org/ns/%s/sa/%s", namespace, account.Name))
		asked, err := ReadCSR(r.csr())
		require.NoError(b, err)
		questions[i] = Question{Client: Client{Account: &account}, CA: "RA", Operation: Enroll, Asked: asked,
			At: time.Unix(1_800_000_000, 0)}
	}
	return questions
}

func BenchmarkDecide(b *testing.B) {
	last := fmt.Sprintf("team-%d", benchRules-1)
	for _, row := range []struct {
		name         string
		perNamespace bool
		namespace    string
		allowed      bool
	}{
		{"last rule is for the client", true, last, true},
		{"last rule refuses", true, "other", false},
		{"all rules are for the client, the last allows", false, last, true},
		{"all rules are for the client, none allows", false, "other", false},
	} {
		b.Run(row.name, func(b *testing.B) {
			p, questions, limits := benchDesk(b, row.perNamespace), benchQuestions(b, row.namespace), NewLimits()
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				if d := p.Decide(questions[i%benchClients], limits); d.Allowed != row.allowed {
					b.Fatal(d)
				}
			}
		})
	}
}

// A client's certificate is read for each request.
func BenchmarkDecide_certificate(b *testing.B) {
	p, questions := benchDesk(b, true), benchQuestions(b, fmt.Sprintf("team-%d", benchRules-1))
	r := &request{t: b}
	r.add(fmt.Sprintf("CN=client-%d-a", benchRules-1))
	r.add("O=Example")
	r.add("URI:spiffe://example.org/ns/a/sa/b")
	client := Client{Certificate: &x509.Certificate{RawSubject: r.subject(), Extensions: r.extensions()}}
	b.ReportAllocs()
	for i := range b.N {
		q := questions[i%benchClients]
		q.Client = client
		if d := p.Decide(q, nil); d.Rule == "" {
			b.Fatal(d)
		}
	}
}
