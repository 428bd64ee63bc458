// Package program has what every program of this repository does: it reads
// the environment by a table of variables, logs, prints its help and its
// version, listens, serves series and answers or asks for a probe.
package program

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"sync"

	"github.com/VictoriaMetrics/metrics"
)

// version is set by the linker: -X
// github.com/certfetcher/certfetcher/internal/program.version=v1.2.3.
var version string

// Documentation is where the documents are read; each file of docs is below it.
const Documentation = "https://github.com/certfetcher/certfetcher/blob/main/docs/"

// Version is the version that was linked in, or that of the
// module when go install built the program.
func Version() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

// ServerGC lets the garbage collector of a server wait until the heap is four times what is in
// use, unless GOGC says otherwise. What a request leaves is little and all of it garbage:
// collecting it as often as Go does by default took an eighth of the processor's time under load.
// GOMEMLIMIT still bounds it.
func ServerGC() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(300)
	}
}

// SeriesContentType is what Write writes.
const SeriesContentType = "text/plain; version=0.0.4; charset=utf-8"

const helpLine = "# HELP "

// Series is the name of a metric, with its labels in the form of a format for fmt.
type Series string

// help has a text of one line, without backslashes, for each name.
var help = map[string]string{}

// DefineSeries defines a series and what it means. It is for package variables.
func DefineSeries(format Series, text string) Series {
	name, _, _ := strings.Cut(string(format), "{")
	help[name] = text
	return format
}

// SeriesSet keeps the series of a process.
type SeriesSet struct{ set *metrics.Set }

// NewSeriesSet returns an empty one.
func NewSeriesSet() SeriesSet { return SeriesSet{metrics.NewSet()} }

// Counter returns a counter, which it makes when there is none.
func (s SeriesSet) Counter(name Series, labels ...any) *metrics.Counter {
	return s.set.GetOrCreateCounter(fmt.Sprintf(string(name), labels...))
}

// Gauge returns a gauge that value sets at every scrape; nil: its method Set does.
func (s SeriesSet) Gauge(name Series, value func() float64, labels ...any) *metrics.Gauge {
	return s.set.GetOrCreateGauge(fmt.Sprintf(string(name), labels...), value)
}

// Histogram returns a histogram with the upper bounds.
func (s SeriesSet) Histogram(name Series, bounds []float64, labels ...any) *metrics.PrometheusHistogram {
	return s.set.GetOrCreatePrometheusHistogramExt(fmt.Sprintf(string(name), labels...), bounds)
}

// Remove removes a series, if there is one of these labels.
func (s SeriesSet) Remove(name Series, labels ...any) {
	s.set.UnregisterMetric(fmt.Sprintf(string(name), labels...))
}

// Write writes the series in the Prometheus text format (version 0.0.4), with their types and with
// what they mean, which the library that keeps them cannot say, and then the process's own (CPU,
// memory, files), which have no help.
func (s SeriesSet) Write(w io.Writer) {
	metrics.ExposeMetadata(true) // the TYPE lines, without which some take every series for untyped
	var series, text bytes.Buffer
	s.set.WritePrometheus(&series)
	metrics.WriteProcessMetrics(&series)
	withIO := isIOReadable()
	for line := range strings.Lines(series.String()) {
		// Where the program is not root, the kernel hides /proc/self/io from it as from others
		// (internal/startup), and the library writes 0 for all that it has.
		if !withIO && strings.Contains(line, "process_io_") {
			continue
		}
		// The library leaves its own HELP lines empty.
		if name, isHelp := strings.CutPrefix(line, helpLine); isHelp {
			name = strings.TrimSpace(name)
			if help[name] == "" {
				continue
			}
			line = helpLine + name + " " + help[name] + "\n"
		}
		text.WriteString(line)
	}
	_, _ = w.Write(text.Bytes()) // a reader that has gone needs no series
}

// isIOReadable tells whether the library can read the process's counters of input and output,
// which does not change.
var isIOReadable = sync.OnceValue(func() bool {
	file, err := os.Open("/proc/self/io")
	if err == nil {
		file.Close()
	}
	return err == nil
})
