package program

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestSeriesSet_Write(t *testing.T) {
	counter := &Series{"a_total", KindCounter, "Counts.", []string{"name"}}
	gauge := &Series{"b", KindGauge, "Is.", nil}
	histogram := &Series{"c_seconds", KindHistogram, "Takes.", []string{"name"}}
	set := NewSeriesSet()
	for _, name := range []string{`"`, "\\\n", "\x00é\xff", "gone"} {
		set.Counter(counter, name).Inc()
	}
	set.Counter(counter, `"`).Inc()
	set.Remove(counter, "gone")
	set.Gauge(gauge, func() float64 { return 1.5e9 + 0.5 }).Set(1)
	set.Gauge(gauge, nil).Set(2)
	for _, took := range []float64{0.1, 0.2, 2, 7} {
		set.Histogram(histogram, []float64{0.1, 2.5}, "x").Update(took)
	}
	var text strings.Builder
	set.Write(&text)
	own, process, found := strings.Cut(text.String(), "# HELP go_")
	assert.True(t, found)
	assert.Equal(t, `# HELP a_total Counts.
# TYPE a_total counter
a_total{name="`+"\x00é\uFFFD"+`"} 1
a_total{name="\""} 2
a_total{name="\\\n"} 1
# HELP b Is.
# TYPE b gauge
b 1.5000000005e+09
# HELP c_seconds Takes.
# TYPE c_seconds histogram
c_seconds_bucket{name="x",le="0.1"} 1
c_seconds_bucket{name="x",le="2.5"} 3
c_seconds_bucket{name="x",le="+Inf"} 4
c_seconds_sum{name="x"} 9.3
c_seconds_count{name="x"} 4
`, own)
	assert.NotContains(t, process, "a_total")
}
