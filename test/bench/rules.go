package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/internal/certservice"
	"github.com/certfetcher/certfetcher/internal/policy"
	"github.com/certfetcher/certfetcher/test/bench/report"
	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// rules is how the cost of a policy grows with its rules, of which the last one is for the client.
func (b *bench) rules() {
	sizes := either(b, []int{1, 100, 1000}, []int{1, 3, 10, 30, 100, 300, 1000, 3000, 10_000})
	client := policy.Client{Certificate: b.clientCertificate()}
	read, memory, allowed, refusal := growth{what: "load"}, growth{what: "memory"}, growth{what: "allow"},
		growth{what: "refuse"}
	var files []string
	for _, n := range sizes {
		text := []byte(manyRules(n, 1, "client", "app.example.org"))
		files = append(files, report.Thousands(len(text)>>10)+" KiB")
		var p *policy.Policy
		var took []time.Duration
		for range either(b, 3, 5) {
			begin := time.Now()
			p = fixture.Must(policy.Parse(text))
			took = append(took, time.Since(begin))
		}
		for _, g := range []*growth{&read, &memory, &allowed, &refusal} {
			g.sizes = append(g.sizes, n)
		}
		read.costs = append(read.costs, report.Milliseconds(slices.Min(took)))
		bytes := heap(func() any { return fixture.Must(policy.Parse(text)) })
		memory.costs = append(memory.costs, float64(bytes)/(1<<10))
		allowed.costs = append(allowed.costs, b.decide(p, client, "app.example.org", true))
		refusal.costs = append(refusal.costs, b.decide(p, client, "other.example.org", false))
	}
	perSecond := fixture.Each(refusal.costs, func(microseconds float64) string {
		return report.Thousands(int(1e6 / microseconds))
	})
	held := fixture.Each(memory.costs, func(kib float64) string { return report.Thousands(int(kib)) + " KiB" })
	table := tableOf([]string{"rules", "file", "load", "memory", "allow", "refuse", "refusals a second"}, sizes, files,
		column(sizes, "%.2f ms", read), held, column(sizes, "%.2f µs", allowed),
		column(sizes, "%.2f µs", refusal), perSecond)
	b.write("rules", table+b.mostRules()+b.hold(read, memory, allowed, refusal))
	read.what, allowed.what, refusal.what = "load (ms)", "allow (µs)", "refuse (µs)"
	b.draw("growth-rules", plotOf("A policy", "rules", "ms or µs", read, allowed, refusal))
}

// clientCertificate is that of a client of certservice.
func (b *bench) clientCertificate() *x509.Certificate {
	ca := fixture.Must(fixture.NewCA("Transport"))
	_, chain, err := ca.Identity("client")
	fixture.Must(0, err)
	return chain[0]
}

// decide returns the microseconds that a decision takes about a request for a name.
func (b *bench) decide(p *policy.Policy, client policy.Client, name string, allowed bool) float64 {
	text, _ := chaos.RequestFor(name, "ECDSA-P256")
	block, _ := pem.Decode(text)
	asked := fixture.Must(policy.ReadCSR(fixture.Must(x509.ParseCertificateRequest(block.Bytes))))
	question := policy.Question{Client: client, CA: fixture.CAName, Operation: policy.Enroll, Asked: asked,
		At: time.Now()}
	const atOnce = 1000
	var took []time.Duration
	for range either(b, 10, 50) {
		begin := time.Now()
		for range atOnce {
			if d := p.Decide(question, nil); d.Allowed != allowed {
				panic(fmt.Sprintf("%s: %+v", name, d))
			}
		}
		took = append(took, time.Since(begin))
	}
	return float64(slices.Min(took).Nanoseconds()) / atOnce / 1000
}

// heap is how many bytes something holds.
func heap(of func() any) int64 {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	value := of()
	runtime.GC()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(value)
	return max(1, int64(after.HeapAlloc)-int64(before.HeapAlloc))
}

// mostRules says with how many of these rules certservice reads the file, and what it says about one more.
func (b *bench) mostRules() string {
	path := filepath.Join(b.dir, "policy.yaml")
	check := func(n int) []string {
		fixture.Must(0, os.WriteFile(path, []byte(manyRules(n, 1, "client", "app.example.org")), 0o600))
		return certservice.NewPolicyFile(path, nil, nil).Check()
	}
	good, no := limit(1, 10_000, func(n int) *refused {
		if faults := check(n); faults != nil {
			return &refused{text: strings.ReplaceAll(faults[0], b.dir, "")}
		}
		return nil
	})
	if no == nil {
		return "\ncertservice reads all of them from one file.\n"
	}
	return fmt.Sprintf("\nOf these rules certservice reads %s from one file. With one more it says: `%s`\n",
		report.Thousands(good), no.text)
}
