package main

import (
	"fmt"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/test/bench/report"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/service"
)

// names is how the cost of a run, and of certservice's part in it, grows with the subject alternative names.
func (b *bench) names() {
	sizes := either(b, []int{1, 50, 500}, []int{1, 3, 10, 30, 50, 100, 300, 500})
	answers := &answering{}
	now, parts := 0, map[int][]float64{} // of certservice, without the CA, in milliseconds by the number of names
	s := fixture.Must(service.Start(b.newDir("identity"), service.Options{Authority: answers,
		Wrap: func(_ *service.Service, next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				begin := time.Now()
				next.ServeHTTP(w, r)
				parts[now] = append(parts[now], report.Milliseconds(time.Since(begin)-answers.took))
			})
		}}))
	b.atEnd(s.Stop)
	answers.CA = s.CA
	took, memory, most := ofRuns("a run", sizes, either(b, 8, 25), func(n int) *exec.Cmd {
		now = n
		var sans []string
		for i := range n {
			sans = append(sans, fmt.Sprintf("name-%d.app.example.org", i))
		}
		command := exec.Command(program)
		command.Env = s.Environment(b.newName("volume"), "OUTPUT_TYPE=PEM", "SANS="+strings.Join(sans, ","))
		return command
	})
	if most != "" {
		b.fault("names: %s", most)
	}
	part := growth{what: "certservice", sizes: took.sizes}
	for _, n := range part.sizes {
		part.costs = append(part.costs, slices.Min(parts[n]))
	}
	b.write("names", tableOf([]string{"names", "a run", "its peak memory", "certservice's part, without the CA"}, sizes,
		column(sizes, "%.1f ms", took), column(sizes, "%.1f MiB", memory), column(sizes, "%.2f ms", part))+
		b.hold(took, memory, part))
	b.draw("growth-names", plotOf("Subject alternative names", "names", "ms", took, part))
}
