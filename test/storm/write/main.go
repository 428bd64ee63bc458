// Command write plays all storms through, and writes the tables and the plots of docs/storms.md. A table that misses a
// target is written, and ends the command with 1.
package main

import (
	"fmt"
	"os"
	"time"

	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/storm"
)

func main() {
	table, plotted, missed := storm.TableHead, map[storm.Kind][]storm.Result{}, 0
	for _, settings := range storm.Scenarios(100_000) {
		began := time.Now()
		r := storm.Play(settings)
		fmt.Printf("%s(played in %.1f s)\n", r.Row(), time.Since(began).Seconds())
		table += r.Row()
		plotted[r.Kind] = append(plotted[r.Kind], r)
		if len(r.Done) < r.Pods || r.Ratio() > 1.3 || r.Starved > 0 || r.Wasted > 0 {
			missed++
		}
	}
	variants := "| | all served | times the bound | starved | wasted | requests per pod | restarts per pod |\n" +
		"|---|---|---|---|---|---|---|\n"
	for _, variant := range storm.Variants() {
		variants += storm.Play(variant.Settings).VariantRow(variant.Name)
	}
	fmt.Print(variants)
	storm.Write("storms", table)
	storm.Write("variants", variants)
	for kind, title := range map[storm.Kind]string{
		storm.Start: "Certificates served, pods that start within 10 s",
		storm.Due:   "Certificates served after an outage, certificates still valid",
	} {
		fixture.Must(0, os.WriteFile("docs/images/storm-"+string(kind)+".svg",
			[]byte(storm.Plot(title, plotted[kind])), 0o644))
	}
	if missed > 0 {
		fmt.Printf("%d storms miss a target\n", missed)
		os.Exit(1)
	}
}
