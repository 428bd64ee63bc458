package program

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// SeriesContentType is what SeriesSet.Write writes.
const SeriesContentType = "text/plain; version=0.0.4; charset=utf-8"

// The types of series, as the text format names them.
const (
	KindCounter   = "counter"
	KindGauge     = "gauge"
	KindHistogram = "histogram"
	KindSummary   = "summary"
)

// Series is what is known of a metric before it has a value. Help is one line without backslashes.
type Series struct {
	Name, Kind, Help string
	Labels           []string
}

var defined []*Series

// DefinedSeries are all series of the packages that a program is made of, by their names. They are
// complete once all packages are initialised.
func DefinedSeries() []*Series {
	return slices.SortedFunc(slices.Values(defined), func(a, b *Series) int { return strings.Compare(a.Name, b.Name) })
}

// DefineCounter defines a series that only rises. It and its like are for package variables.
func DefineCounter(name, help string, labels ...string) *Series {
	return define(name, KindCounter, help, labels)
}

// DefineGauge defines a series that rises and falls.
func DefineGauge(name, help string, labels ...string) *Series {
	return define(name, KindGauge, help, labels)
}

// DefineHistogram defines a series of how many observations were below which bounds.
func DefineHistogram(name, help string, labels ...string) *Series {
	return define(name, KindHistogram, help, labels)
}

func define(name, kind, help string, labels []string) *Series {
	s := &Series{name, kind, help, labels}
	defined = append(defined, s)
	return s
}

// SeriesSet keeps the series of a process. It is safe for concurrent use.
type SeriesSet struct {
	mu  sync.Mutex
	all map[*Series]map[string]value // by the labels as they are written
}

// value is one series with all its labels.
type value interface {
	write(w *bytes.Buffer, name, labels string)
}

// NewSeriesSet returns an empty one.
func NewSeriesSet() *SeriesSet { return &SeriesSet{all: map[*Series]map[string]value{}} }

// of returns the value with these labels, which create makes when there is none.
func of[V value](set *SeriesSet, s *Series, labels []any, create func() V) V {
	text := s.labelText(labels)
	set.mu.Lock()
	defer set.mu.Unlock()
	if set.all[s] == nil {
		set.all[s] = map[string]value{}
	}
	v, ok := set.all[s][text].(V)
	if !ok {
		v = create()
		set.all[s][text] = v
	}
	return v
}

var labelValue = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// labelText are the labels between braces, without these; empty for none.
func (s *Series) labelText(values []any) string {
	var text strings.Builder
	for i, name := range s.Labels {
		if i > 0 {
			text.WriteByte(',')
		}
		v := strings.ToValidUTF8(fmt.Sprint(values[i]), "\uFFFD")
		text.WriteString(name + `="` + labelValue.Replace(v) + `"`)
	}
	return text.String()
}

// Counter returns a counter, which it makes when there is none.
func (set *SeriesSet) Counter(s *Series, labels ...any) *Counter {
	return of(set, s, labels, func() *Counter { return &Counter{} })
}

// Gauge returns a gauge that read sets at every scrape; nil: its method Set does. Of a gauge that
// there is, read stays what it was.
func (set *SeriesSet) Gauge(s *Series, read func() float64, labels ...any) *Gauge {
	return of(set, s, labels, func() *Gauge { return &Gauge{read: read} })
}

// Histogram returns a histogram with the upper bounds, in rising order.
func (set *SeriesSet) Histogram(s *Series, bounds []float64, labels ...any) *Histogram {
	return of(set, s, labels, func() *Histogram {
		return &Histogram{bounds: bounds, counts: make([]uint64, len(bounds))}
	})
}

// Remove removes a series, if there is one of these labels.
func (set *SeriesSet) Remove(s *Series, labels ...any) {
	set.mu.Lock()
	defer set.mu.Unlock()
	delete(set.all[s], s.labelText(labels))
}

// Write writes the series in the Prometheus text format (version 0.0.4), in the order of their names,
// and then those of the process.
func (set *SeriesSet) Write(w io.Writer) {
	var text bytes.Buffer
	for _, family := range set.snapshot() {
		family.writeHead(&text)
		for _, labels := range slices.Sorted(maps.Keys(family.values)) {
			family.values[labels].write(&text, family.Name, labels)
		}
	}
	writeProcess(&text)
	_, _ = w.Write(text.Bytes()) // a reader that has gone needs no series
}

type family struct {
	*Series
	values map[string]value
}

// snapshot is what there is now: gauges are read without the lock, as reading them may take others.
func (set *SeriesSet) snapshot() (families []family) {
	set.mu.Lock()
	defer set.mu.Unlock()
	for s, values := range set.all {
		if len(values) > 0 {
			families = append(families, family{s, maps.Clone(values)})
		}
	}
	slices.SortFunc(families, func(a, b family) int { return strings.Compare(a.Name, b.Name) })
	return families
}

func (s *Series) writeHead(w *bytes.Buffer) {
	w.WriteString("# HELP " + s.Name + " " + s.Help + "\n# TYPE " + s.Name + " " + s.Kind + "\n")
}

func writeSample(w *bytes.Buffer, name, labels string, v float64) {
	w.WriteString(name)
	if labels != "" {
		w.WriteString("{" + labels + "}")
	}
	w.WriteString(" " + number(v) + "\n")
}

// number writes whole numbers without an exponent, as people read them.
func number(v float64) string {
	if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
		return strconv.FormatInt(int64(v), 10)
	}
	switch { // the format's own words
	case math.IsInf(v, 1):
		return "+Inf"
	case math.IsInf(v, -1):
		return "-Inf"
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}

// Counter counts events.
type Counter struct{ n atomic.Uint64 }

// Inc counts one.
func (c *Counter) Inc() { c.n.Add(1) }

func (c *Counter) write(w *bytes.Buffer, name, labels string) {
	writeSample(w, name, labels, float64(c.n.Load()))
}

// Gauge is one value.
type Gauge struct {
	read func() float64 // nil: bits are what was set
	bits atomic.Uint64
}

// Set sets the value.
func (g *Gauge) Set(v float64) { g.bits.Store(math.Float64bits(v)) }

func (g *Gauge) write(w *bytes.Buffer, name, labels string) {
	v := math.Float64frombits(g.bits.Load())
	if g.read != nil {
		v = g.read()
	}
	writeSample(w, name, labels, v)
}

// Histogram counts observations by their size.
type Histogram struct {
	bounds []float64
	mu     sync.Mutex
	counts []uint64 // of observations up to the bound, and above the one before
	count  uint64
	sum    float64
}

// Update counts an observation.
func (h *Histogram) Update(v float64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if at, _ := slices.BinarySearch(h.bounds, v); at < len(h.bounds) {
		h.counts[at]++
	}
	h.count++
	h.sum += v
}

func (h *Histogram) write(w *bytes.Buffer, name, labels string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	with := labels
	if with != "" {
		with += ","
	}
	below := uint64(0)
	for i, bound := range h.bounds {
		below += h.counts[i]
		writeSample(w, name+"_bucket", with+`le="`+number(bound)+`"`, float64(below))
	}
	writeSample(w, name+"_bucket", with+`le="+Inf"`, float64(h.count))
	writeSample(w, name+"_sum", labels, h.sum)
	writeSample(w, name+"_count", labels, float64(h.count))
}
