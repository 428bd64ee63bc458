package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/test/bench/profile"
	"github.com/certfetcher/certfetcher/test/bench/report"
	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/fixture"
)

const (
	rules, clientsOfRule = 1000, 10
	slice                = 500 * time.Millisecond // of time, for each of the services in turn
)

// policies compares certservice without a policy to one with many rules, of which the last one is for
// the client. They take turns, as what else the machine does changes from second to second.
func (b *bench) policies() {
	authority, entry, err := fixture.StartDevCA("bin", b.dir)
	fixture.Must(0, err)
	b.atEnd(authority.Stop)
	var rows [][]string
	compare := func(what string, statuses [2]int, policies ...string) {
		var services [2]*fixture.Stack
		var clients [2]*http.Client
		for i, policy := range policies {
			services[i] = b.startWith(entry, fmt.Sprint(what, i), policy)
			defer services[i].CertService.Stop()
			clients[i] = chaos.Kept(services[i].Dir, manyAtOnce)
		}
		turns := either(b, 2, 24)
		var answers [2]float64
		for i := range 2 * turns {
			begin := time.Now()
			answers[i%2] += float64(enrol(services[i%2], clients[i%2], statuses[i%2],
				func() bool { return time.Since(begin) < slice }))
		}
		for i := range answers {
			answers[i] /= slice.Seconds() * float64(turns)
		}
		change := answers[1]/answers[0] - 1
		rows = append(rows, []string{what, report.Thousands(int(answers[0])) + "/s",
			report.Thousands(int(answers[1])) + "/s", fmt.Sprintf("%+.1f %%", 100*change)})
		if change < -0.5 {
			b.fault("policy: %d rules change the rate of %s by %.0f %%", rules, what, 100*change)
		}
	}
	compare("enrolments", [2]int{http.StatusOK, http.StatusOK}, "",
		manyRules(rules, clientsOfRule, "client", "app.example.org"))
	compare("refusals", [2]int{http.StatusForbidden, http.StatusForbidden}, oneRule("client", "other.example.org"),
		manyRules(rules, clientsOfRule, "client", "other.example.org"))
	b.write("policies", report.Table([]string{"", "no policy, or one rule", "1,000 rules", "change"}, rows))
}

// startWith starts a certservice with a policy; "": without one.
func (b *bench) startWith(entry map[string]any, name, policy string) *fixture.Stack {
	at := b.newDir(name)
	environment := slices.Clone(profile.Limits)
	if policy != "" {
		path := filepath.Join(at, "policy.yaml")
		fixture.Must(0, os.WriteFile(path, []byte(policy), 0o600))
		environment = append(environment, "POLICY_PATH="+path)
	}
	return fixture.Must(fixture.StartCertService("bin", at, entry, environment...))
}

func oneRule(client, host string) string {
	return "rules:\n" + ruleText(0, []string{client}, host)
}

// manyRules is a policy of which only the last rule is for the client.
func manyRules(rules, clients int, client, host string) string {
	var text strings.Builder
	text.WriteString("rules:\n")
	for i := range rules {
		names := make([]string, clients)
		for n := range names {
			names[n] = fmt.Sprintf("client-%d-%d-*", i, n)
		}
		if i == rules-1 {
			names[clients-1] = client
		}
		text.WriteString(ruleText(i, names, host))
	}
	return text.String()
}

func ruleText(number int, clients []string, host string) string {
	var text strings.Builder
	fmt.Fprintf(&text, "  - name: rule %d\n    cas: [RA]\n    operations: [enroll]\n    clients:\n", number)
	for _, client := range clients {
		fmt.Fprintf(&text, "      - subject: {commonName: %q}\n", client)
	}
	fmt.Fprintf(&text, "    allow: {commonName: [%q], dns: [%q], subject: {organization: ['*'], country: ['*'], "+
		"state: ['*'], locality: ['*'], organizationalUnit: ['*']}}\n", host, host)
	return text.String()
}
