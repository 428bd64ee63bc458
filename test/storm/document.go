package storm

import (
	"fmt"
	"time"

	"github.com/certfetcher/certfetcher/test/bench/report"
)

// Write replaces a generated part of docs/storms.md, from the root of the repository.
func Write(part, content string) { report.Write("docs/storms.md", part, content) }

// words say what makes the pods come.
var words = map[Kind]string{
	Start:   "start within 10 s",
	Expired: "renew after an outage, expired",
	Due:     "renew after an outage, still valid",
}

// TableHead is the head of a table of Rows.
const TableHead = "| pods | CA | pods / rate | bound | all served | times the bound | starved | wasted " +
	"| busiest second at the CA | requests per pod | restarts per pod |\n" +
	"|---|---|---|---|---|---|---|---|---|---|---|\n"

// Row is a result as a row of a table.
func (r Result) Row() string {
	cells := []string{
		report.Thousands(r.Pods) + " " + words[r.Kind], fmt.Sprintf("%g/s", r.PerSecond),
		seconds(time.Duration(float64(r.Pods) / r.PerSecond * float64(time.Second))),
		seconds(r.Bound), seconds(r.All), fmt.Sprintf("%.2f", r.Ratio()), fmt.Sprint(r.Starved), fmt.Sprint(r.Wasted),
		fmt.Sprint(r.PeakCA), r.perPod(r.Tries), r.perPod(r.Restarts),
	}
	return report.Row(cells)
}

// VariantRow is a result as a row of the table of variants.
func (r Result) VariantRow(name string) string {
	return fmt.Sprintf("| %s | %s | %.2f | %d | %d | %s | %s |\n", name, seconds(r.All), r.Ratio(), r.Starved, r.Wasted,
		r.perPod(r.Tries), r.perPod(r.Restarts))
}

func (r Result) perPod(n int) string { return fmt.Sprintf("%.1f", float64(n)/float64(r.Pods)) }

func seconds(d time.Duration) string { return report.Thousands(int(d.Seconds()+0.5)) + " s" }

// Plot draws, for each result, which share of its pods was served by when, in multiples of its
// bound, as SVG. The line of a CA that is never idle is dashed.
func Plot(title string, results []Result) string {
	const most = 1.5 // times the bound
	p := report.Plot{
		Title: title,
		X: report.Axis{Title: "time, in multiples of the bound", Ticks: []float64{0, 0.25, 0.5, 0.75, 1, 1.25, most},
			Label: func(multiple float64) string { return fmt.Sprintf("%g", multiple) }},
		Y: report.Axis{Ticks: []float64{0, 0.2, 0.4, 0.6, 0.8, 1},
			Label: func(share float64) string { return fmt.Sprintf("%.0f %%", 100*share) }},
		Lines: []report.Line{{Points: [][2]float64{{0, 0}, {1, 1}}}},
	}
	for _, r := range results {
		line := report.Line{Name: fmt.Sprintf("%s at %g/s", report.Thousands(r.Pods), r.PerSecond),
			Points: [][2]float64{{0, 0}}}
		const points = 150
		for point := 1; point <= points; point++ {
			i := len(r.Done)*point/points - 1
			if i >= 0 && r.Done[i] <= time.Duration(most*float64(r.Bound)) {
				line.Points = append(line.Points, [2]float64{float64(r.Done[i]) / float64(r.Bound),
					float64(i+1) / float64(r.Pods)})
			}
		}
		p.Lines = append(p.Lines, line)
	}
	return p.SVG()
}
