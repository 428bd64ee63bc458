package program

import (
	"bytes"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/VictoriaMetrics/metrics"
)

// SeriesContentType is what Write writes.
const SeriesContentType = "text/plain; version=0.0.4; charset=utf-8"

const helpLine = "# HELP "

// WriteSeries writes series in the Prometheus text format (version 0.0.4), with their types and with what they mean, which
// the library that keeps them cannot say. It writes the series of a set, and then the process's own (CPU, memory, files). help has a text of one
// line, without backslashes, for each name; the process's own have none.
func WriteSeries(w io.Writer, set *metrics.Set, help map[string]string) {
	metrics.ExposeMetadata(true) // the TYPE lines, without which some take every series for untyped
	var series, text bytes.Buffer
	set.WritePrometheus(&series)
	metrics.WriteProcessMetrics(&series)
	withIO := isIOReadable()
	for line := range strings.Lines(series.String()) {
		// Where the program is not root, the kernel hides /proc/self/io from it as from others (internal/startup), and
		// the library writes 0 for all that it has.
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

// isIOReadable tells whether the library can read the process's counters of input and output, which does not change.
var isIOReadable = sync.OnceValue(func() bool {
	file, err := os.Open("/proc/self/io")
	if err == nil {
		file.Close()
	}
	return err == nil
})
