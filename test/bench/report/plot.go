package report

import (
	"fmt"
	"math"
	"strings"
)

// Plot is a diagram of lines.
type Plot struct {
	Title string
	X, Y  Axis
	Lines []Line
}

// Axis is one of a plot. It reaches from the first of its ticks to the last.
type Axis struct {
	Title string
	Ticks []float64
	Label func(tick float64) string
	Log   bool // the ticks are above 0
}

// Line is one of a plot. Points that lie beyond the axes are the caller's to leave out.
type Line struct {
	Name   string // for the legend; a straight line without one is dashed, to compare with
	Points [][2]float64
	Marked bool // each point has a dot
}

// share is where a value lies between the ends of the axis, from 0 to 1.
func (a Axis) share(value float64) float64 {
	from, to := a.Ticks[0], a.Ticks[len(a.Ticks)-1]
	if a.Log {
		value, from, to = math.Log(value), math.Log(from), math.Log(to)
	}
	return (value - from) / (to - from)
}

// Powers are the ticks of a logarithmic axis that has all of the values, which are above 0: powers of ten.
func Powers(values ...float64) (ticks []float64) {
	lowest, highest := math.Inf(1), 0.0
	for _, value := range values {
		lowest, highest = min(lowest, value), max(highest, value)
	}
	from, to := math.Floor(math.Log10(lowest)), math.Ceil(math.Log10(highest))
	for power := from; power <= max(to, from+1); power++ {
		ticks = append(ticks, math.Pow(10, power))
	}
	return ticks
}

var colours = []string{"#1b6ca8", "#d1495b", "#2e933c", "#8e44ad", "#b9770e", "#34495e"}

// SVG draws the plot.
func (p Plot) SVG() string {
	const width, height, left, top, right, bottom = 720, 360, 60, 40, 170, 50
	x := func(value float64) float64 { return left + p.X.share(value)*(width-left-right) }
	y := func(value float64) float64 { return height - bottom - p.Y.share(value)*(height-top-bottom) }
	var svg strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&svg, format+"\n", args...) }
	line(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img" `+
		`font-family="sans-serif" font-size="12">`, width, height, width, height)
	line(`<title>%s</title>`, p.Title)
	line(`<rect width="%d" height="%d" fill="#ffffff"/>`, width, height)
	line(`<text x="%d" y="22" font-size="15" fill="#222222">%s</text>`, left, p.Title)
	for _, tick := range p.Y.Ticks {
		line(`<path d="M%d.0 %.1fH%d.0" stroke="#dddddd"/>`, left, y(tick), width-right)
		line(`<text x="%d" y="%.1f" text-anchor="end" fill="#444444">%s</text>`, left-8, y(tick)+4, p.Y.Label(tick))
	}
	for _, tick := range p.X.Ticks {
		line(`<path d="M%.1f %d.0V%d.0" stroke="#dddddd"/>`, x(tick), height-bottom, top)
		line(`<text x="%.1f" y="%d" text-anchor="middle" fill="#444444">%s</text>`, x(tick), height-bottom+18,
			p.X.Label(tick))
	}
	line(`<text x="%.1f" y="%d" text-anchor="middle" fill="#444444">%s</text>`, float64(left+width-right)/2, height-12,
		p.X.Title)
	if p.Y.Title != "" {
		line(`<text x="%d" y="%d" text-anchor="end" fill="#444444">%s</text>`, width-right, top-6, p.Y.Title)
	}
	named := 0
	for _, l := range p.Lines {
		path := ""
		for i, point := range l.Points {
			path += fmt.Sprintf("%c%.1f %.1f", "ML"[min(i, 1)], x(point[0]), y(point[1]))
		}
		if l.Name == "" {
			line(`<path d="%s" stroke="#222222" stroke-dasharray="5 4"/>`, path)
			continue
		}
		colour := colours[named%len(colours)]
		line(`<path fill="none" stroke="%s" stroke-width="2" d="%s"/>`, colour, path)
		if l.Marked {
			for _, point := range l.Points {
				line(`<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`, x(point[0]), y(point[1]), colour)
			}
		}
		at := top + 16 + 22*named
		line(`<path d="M%d %dh18" stroke="%s" stroke-width="2"/><text x="%d" y="%d" fill="#222222">%s</text>`,
			width-right+16, at-4, colour, width-right+40, at, l.Name)
		named++
	}
	svg.WriteString("</svg>\n")
	return svg.String()
}
