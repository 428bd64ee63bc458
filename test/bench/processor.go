package main

import (
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/certfetcher/certfetcher/test/bench/profile"
	"github.com/certfetcher/certfetcher/test/bench/report"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// profiled builds what package profile measures.
var profiled = sync.OnceValues(func() (bin, loader string) {
	bin = filepath.Join("bin", "profile")
	fixture.Must(0, profile.Build(".", bin))
	return bin, fixture.Must(profile.BuildLoad(".", bin))
})

// processor tells what certservice spends processor time on at saturation, by the kind of the leaf's key.
func (b *bench) processor() {
	bin, loader := profiled()
	head := []string{"of an enrolment"}
	rows := [][]string{{"processor"}, {"allocations"}, {"allocated"}}
	for _, kind := range profile.Kinds {
		rows = append(rows, []string{string(kind)})
	}
	for _, key := range either(b, []string{"ECDSA-P256"}, []string{"ECDSA-P256", "RSA-2048", "Ed25519"}) {
		r := fixture.Must(profile.Measure(bin, loader, b.newDir("profile-"+key), profile.Options{Key: key,
			Connections: manyAtOnce, For: either(b, time.Second, 10*time.Second)}))
		each := float64(max(1, r.Enrolments))
		cells := []string{fmt.Sprintf("%.0f µs", float64(r.Usage.CPU.Microseconds())/each),
			report.Thousands(int(float64(r.Allocations) / each)), fmt.Sprintf("%.1f KiB", float64(r.Bytes)/each/1024)}
		for _, kind := range profile.Kinds {
			cells = append(cells, fmt.Sprintf("%.0f %%", 100*r.Shares[kind]))
		}
		head = append(head, key)
		for i, cell := range cells {
			rows[i] = append(rows[i], cell)
		}
		if r.Shares[profile.Cryptography] < 0.2 {
			b.fault("certservice spends %.0f %% of its time on cryptography at saturation, want more than 20 %%",
				100*r.Shares[profile.Cryptography])
		}
	}
	b.write("processor", report.Table(head, rows))
}

// sessions tells what a resumed TLS session saves certservice.
func (b *bench) sessions() {
	bin, loader := profiled()
	var rows [][]string
	for _, key := range either(b, []string{"P-256"}, []string{"P-256", "RSA-2048"}) {
		for _, resume := range []bool{false, true} {
			h := fixture.Must(profile.MeasureHandshakes(bin, loader, b.newDir(fmt.Sprint(key, resume)), key, resume,
				either(b, time.Second, 5*time.Second)))
			session := "new"
			if resume {
				session = "resumed"
			}
			rows = append(rows, []string{key, session, report.Thousands(int(h.Rate())),
				fmt.Sprintf("%d µs", h.CPUEach().Microseconds())})
			if resumed := h.Resumed > h.Connections/2; resumed != resume {
				b.fault("%d of %d sessions were resumed, where that was %t", h.Resumed, h.Connections, resume)
			}
		}
	}
	b.write("sessions", report.Table([]string{"keys of both sides", "session", "connections a second",
		"processor of certservice, each"}, rows))
}
