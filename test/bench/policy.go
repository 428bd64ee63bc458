package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/fixture"
)

const (
	rules, clientsOfRule = 1000, 10
	slice, turns         = 500 * time.Millisecond, 24 // of time, for each of the services in turn
)

// policies compares certservice without a policy to one with many rules, of which the last one is for
// the client. They take turns, as what else the machine does changes from second to second.
func policies(dir string) {
	fixture.Must(0, os.Mkdir(dir, 0o700))
	authority, entry, err := fixture.StartDevCA("bin", dir)
	if err != nil {
		panic(err)
	}
	defer authority.Stop()
	start := func(name, policy string) (*fixture.Stack, *http.Client) {
		at := filepath.Join(dir, name)
		fixture.Must(0, os.Mkdir(at, 0o700))
		environment := []string{"MAX_IN_FLIGHT=512", "MAX_IN_FLIGHT_PER_CLIENT=512"}
		if policy != "" {
			fixture.Must(0, os.WriteFile(filepath.Join(at, "policy.yaml"), []byte(policy), 0o600))
			environment = append(environment, "POLICY_PATH="+filepath.Join(at, "policy.yaml"))
		}
		s := fixture.Must(fixture.StartCertService("bin", at, entry, environment...))
		return s, &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
			MaxIdleConnsPerHost: 32, TLSClientConfig: chaos.Identity(s.Dir)}}
	}
	fmt.Printf("\ncertservice with %d rules for %d clients, the last of which fits; 32 connections\n", rules,
		rules*clientsOfRule)
	compare := func(what string, status [2]int, first, second string) {
		a, asA := start(what+"-1", first)
		defer a.CertService.Stop()
		b, asB := start(what+"-2", second)
		defer b.CertService.Stop()
		var answers [2]float64
		for i := range 2 * turns {
			s, client := a, asA
			if i%2 == 1 {
				s, client = b, asB
			}
			answers[i%2] += float64(answersIn(s, client, slice, status[i%2]))
		}
		for i := range answers {
			answers[i] /= slice.Seconds() * turns
		}
		fmt.Printf("%-10s %9.0f/s without, %9.0f/s with: %+.1f %%\n", what, answers[0], answers[1],
			100*(answers[1]/answers[0]-1))
	}
	compare("enrolments", [2]int{http.StatusOK, http.StatusOK}, "", manyRules("client", "app.example.org"))
	compare("refusals", [2]int{http.StatusForbidden, http.StatusForbidden}, oneRule("client", "other.example.org"),
		manyRules("client", "other.example.org"))
}

// answersIn counts the answers in a time.
func answersIn(s *fixture.Stack, client *http.Client, within time.Duration, status int) int {
	request := chaos.Enrolment(s.URL+fixture.CAName, "ECDSA-P256")
	begin, seen := time.Now(), &chaos.Latencies{}
	chaos.Together(32, 32, func(int) {
		for time.Since(begin) < within {
			seen.Measure(func() error { return chaos.Ask(client, request, status) })
		}
	})
	if len(seen.Failures) > 0 {
		panic(seen.Failures[0])
	}
	return len(seen.Took)
}

func oneRule(client, host string) string {
	return "rules:\n" + ruleText(0, []string{client}, host)
}

func manyRules(client, host string) string {
	var text strings.Builder
	text.WriteString("rules:\n")
	for i := range rules {
		names := make([]string, clientsOfRule)
		for n := range names {
			names[n] = fmt.Sprintf("client-%d-%d-*", i, n)
		}
		if i == rules-1 {
			names[clientsOfRule-1] = client
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
