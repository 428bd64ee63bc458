package storm

import (
	"fmt"
	"strings"
	"time"
)

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
		thousands(r.Pods) + " " + words[r.Kind], fmt.Sprintf("%g/s", r.PerSecond),
		seconds(time.Duration(float64(r.Pods) / r.PerSecond * float64(time.Second))),
		seconds(r.Bound), seconds(r.All), fmt.Sprintf("%.2f", r.Ratio()), fmt.Sprint(r.Starved), fmt.Sprint(r.Wasted),
		fmt.Sprint(r.PeakCA), r.perPod(r.Tries), r.perPod(r.Restarts),
	}
	return "| " + strings.Join(cells, " | ") + " |\n"
}

// VariantRow is a result as a row of the table of variants.
func (r Result) VariantRow(name string) string {
	return fmt.Sprintf("| %s | %s | %.2f | %d | %d | %s | %s |\n", name, seconds(r.All), r.Ratio(), r.Starved, r.Wasted,
		r.perPod(r.Tries), r.perPod(r.Restarts))
}

func (r Result) perPod(n int) string { return fmt.Sprintf("%.1f", float64(n)/float64(r.Pods)) }

func seconds(d time.Duration) string { return thousands(int(d.Seconds()+0.5)) + " s" }

func thousands(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%d,%03d", n/1000, n%1000)
}

// Plot draws, for each result, which share of its pods was served by when, in multiples of its
// bound, as SVG. The line of a CA that is never idle is dashed.
func Plot(title string, results []Result) string {
	const width, height, left, top, right, bottom = 720, 360, 60, 40, 170, 50
	const most = 1.5 // times the bound
	colours := []string{"#1b6ca8", "#d1495b", "#2e933c", "#8e44ad", "#b9770e", "#34495e"}
	x := func(multiple float64) float64 { return left + multiple/most*(width-left-right) }
	y := func(share float64) float64 { return height - bottom - share*(height-top-bottom) }
	var svg strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&svg, format+"\n", args...) }
	line(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img" `+
		`font-family="sans-serif" font-size="12">`, width, height, width, height)
	line(`<title>%s</title>`, title)
	line(`<rect width="%d" height="%d" fill="#ffffff"/>`, width, height)
	line(`<text x="%d" y="22" font-size="15" fill="#222222">%s</text>`, left, title)
	for i := range 6 {
		share := float64(i) / 5
		line(`<path d="M%.1f %.1fH%.1f" stroke="#dddddd"/>`, x(0), y(share), x(most))
		line(`<text x="%d" y="%.1f" text-anchor="end" fill="#444444">%.0f %%</text>`, left-8, y(share)+4, 100*share)
	}
	for i := range 7 {
		multiple := float64(i) / 4
		line(`<path d="M%.1f %.1fV%.1f" stroke="#dddddd"/>`, x(multiple), y(0), y(1))
		line(`<text x="%.1f" y="%d" text-anchor="middle" fill="#444444">%g</text>`, x(multiple), height-bottom+18,
			multiple)
	}
	line(`<text x="%.1f" y="%d" text-anchor="middle" fill="#444444">time, in multiples of the bound</text>`,
		x(most/2), height-12)
	line(`<path d="M%.1f %.1fL%.1f %.1f" stroke="#222222" stroke-dasharray="5 4"/>`, x(0), y(0), x(1), y(1))
	for n, r := range results {
		colour := colours[n%len(colours)]
		fmt.Fprintf(&svg, `<path fill="none" stroke="%s" stroke-width="2" d="M%.1f %.1f`, colour, x(0), y(0))
		const points = 150
		for point := 1; point <= points; point++ {
			i := len(r.Done)*point/points - 1
			if i >= 0 && r.Done[i] <= time.Duration(most*float64(r.Bound)) {
				fmt.Fprintf(&svg, "L%.1f %.1f", x(float64(r.Done[i])/float64(r.Bound)), y(float64(i+1)/float64(r.Pods)))
			}
		}
		svg.WriteString("\"/>\n")
		at := top + 16 + 22*n
		line(`<path d="M%d %dh18" stroke="%s" stroke-width="2"/><text x="%d" y="%d" fill="#222222">%s at %g/s</text>`,
			width-right+16, at-4, colour, width-right+40, at, thousands(r.Pods), r.PerSecond)
	}
	svg.WriteString("</svg>\n")
	return svg.String()
}
