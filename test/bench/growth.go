package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os/exec"
	"regexp"
	"slices"

	"github.com/certfetcher/certfetcher/test/bench/report"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// growth is a cost for each of several numbers of things, in rising order.
type growth struct {
	what  string
	sizes []int
	costs []float64 // above 0
}

// worstExponent is the largest that counts as linear: what is quadratic has 2, and few runs have noise.
func (b *bench) worstExponent() float64 { return either(b, 1.6, 1.35) }

// exponent is e where cost = least cost + a * size^e, by the last size and an earlier one: that of about a tenth, or
// one of up to a third that costs clearly more than the first. It is 0 where the cost does not double: of less, the
// most may be noise.
func (g growth) exponent() float64 {
	last, least := len(g.sizes)-1, slices.Min(g.costs)
	added := func(i int) float64 { return g.costs[i] - least }
	if last < 2 || added(last) < least {
		return 0
	}
	earlier := 1
	for (g.sizes[earlier]*10 < g.sizes[last] || added(earlier) < least/10) && g.sizes[earlier+1]*3 <= g.sizes[last] {
		earlier++
	}
	before := max(added(earlier), least/20) // of less, the most is noise
	more := func(i int) float64 { return float64(g.sizes[i] - g.sizes[0]) }
	return math.Log(added(last)/before) / math.Log(more(last)/more(earlier))
}

// from is the growth without the first sizes.
func (g growth) from(first int) growth { return growth{g.what, g.sizes[first:], g.costs[first:]} }

// hold notes a fault for each growth that is worse than linear, and returns what is said about all of them.
func (b *bench) hold(all ...growth) string {
	var rows [][]string
	for _, g := range all {
		e := g.exponent()
		rows = append(rows, []string{g.what, fmt.Sprintf("%.2f", e)})
		if e > b.worstExponent() {
			b.fault("%s grows with the power of %.2f of the number, want at most %.2f: %d, %.4g", g.what, e,
				b.worstExponent(), g.sizes, g.costs)
		}
	}
	return "\n" + report.Table([]string{"what grows", "with the power of"}, rows)
}

// plotOf draws growths on logarithmic axes, with a dashed line for what is linear.
func plotOf(title, x, y string, all ...growth) report.Plot {
	p := report.Plot{Title: title, X: report.Axis{Title: x, Log: true}, Y: report.Axis{Title: y, Log: true}}
	var costs, sizes []float64
	for _, g := range all {
		line := report.Line{Name: g.what, Marked: true}
		for i, size := range g.sizes {
			line.Points = append(line.Points, [2]float64{float64(size), g.costs[i]})
			sizes, costs = append(sizes, float64(size)), append(costs, g.costs[i])
		}
		p.Lines = append(p.Lines, line)
	}
	label := func(tick float64) string {
		if tick >= 1000 {
			return report.Thousands(int(tick + 0.5))
		}
		return fmt.Sprintf("%.3g", tick)
	}
	p.X.Ticks, p.Y.Ticks = report.Powers(sizes...), report.Powers(costs...)
	p.X.Label, p.Y.Label = label, label
	// From the corner, as far as it goes.
	powers := float64(min(len(p.X.Ticks), len(p.Y.Ticks)) - 1)
	p.Lines = append(p.Lines, report.Line{Points: [][2]float64{{p.X.Ticks[0], p.Y.Ticks[0]},
		{p.X.Ticks[0] * math.Pow(10, powers), p.Y.Ticks[0] * math.Pow(10, powers)}}})
	return p
}

// refused is how certfetcher ended with an error.
type refused struct {
	code int
	text string
}

var lastError = regexp.MustCompile(`"error":("(?:[^"\\]|\\.)*")[^\n]*\n$`)

// try runs certfetcher; nil: it accepts what it gets.
func try(command *exec.Cmd) *refused {
	log, err := command.CombinedOutput()
	if err == nil {
		return nil
	}
	no := &refused{code: command.ProcessState.ExitCode()}
	if found := lastError.FindSubmatch(log); found != nil {
		fixture.Must(0, json.Unmarshal(found[1], &no.text))
	}
	return no
}

// limitHead is the head of a table of limits.
var limitHead = []string{"limit of", "at most", "exit code of more", "and its error"}

// ofRuns is how the least time of a run in milliseconds, which is the one without noise, and its peak memory in MiB
// grow up to the largest size that is not refused. Sizes take turns, as what else the machine does changes from second
// to second. most has cells of limitHead: what the limit is, and how the next one is refused; "": none is.
func ofRuns(what string, sizes []int, rounds int, command func(n int) *exec.Cmd) (took, memory growth, most string) {
	accepted := 0
	for accepted < len(sizes) && try(command(sizes[accepted])) == nil {
		accepted++
	}
	if accepted < len(sizes) {
		good, no := limit(sizes[accepted-1], sizes[accepted], func(n int) *refused { return try(command(n)) })
		most = fmt.Sprintf("%s | %d | `%s`", report.Thousands(good), no.code, no.text)
	}
	sizes = sizes[:accepted]
	all := make([][]float64, accepted)
	for range rounds {
		for i, n := range sizes {
			once, _ := run(command(n))
			all[i] = append(all[i], report.Milliseconds(once.wall))
		}
	}
	took, memory = growth{what: what, sizes: sizes}, growth{what: "memory: " + what, sizes: sizes}
	for i, n := range sizes {
		took.costs = append(took.costs, slices.Min(all[i]))
		peaks := []float64{0, 0, 0}
		for i := range peaks {
			peaks[i] = float64(peak(command(n)).kib) / 1024
		}
		memory.costs = append(memory.costs, median(peaks))
	}
	return took, memory, most
}

// limit is the largest number that is not refused, between one that is not and one that is; and how the next one is.
func limit(good, bad int, try func(n int) *refused) (most int, no *refused) {
	for bad-good > 1 {
		middle := (good + bad) / 2
		if try(middle) == nil {
			good = middle
		} else {
			bad = middle
		}
	}
	return good, try(bad)
}

// column is a growth's costs as cells, with as many empty ones as there are sizes without.
func column(sizes []int, format string, g growth) []string {
	return fixture.Each(sizes, func(size int) string {
		if i := slices.Index(g.sizes, size); i >= 0 {
			return fmt.Sprintf(format, g.costs[i])
		}
		return "refused"
	})
}

// tableOf is a table with a row for each size.
func tableOf(head []string, sizes []int, columns ...[]string) string {
	var rows [][]string
	for i, size := range sizes {
		row := []string{report.Thousands(size)}
		for _, c := range columns {
			row = append(row, c[i])
		}
		rows = append(rows, row)
	}
	return report.Table(head, rows)
}
