package manifests

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var sample = regexp.MustCompile(`^([a-z_]+)(?:\{(.*)\})? (\S+)$`)

// moments are when things are in the fleet, for its series of times.
var moments = map[string]string{
	"expiry": "now+20d", "not_before": "now-40d", "next_renewal": "now+1d", "last_failure": "now-2h",
	"next_update": "now+6d",
}

// fleet is four hours of what both programs export, of two sidecars and a certservice: counters rise by
// one a minute, gauges stay as they are.
func fleet(t *testing.T) history {
	t.Helper()
	all := history{}
	for i, text := range expositions(t) {
		targets := []string{`namespace="certs",pod="certservice-0",job="certservice",instance="10.0.0.1:8080"`}
		if i == 0 {
			targets = []string{`namespace="shop",pod="app-0",job="certfetcher",instance="10.0.0.2:8081"`,
				`namespace="shop",pod="app-1",job="certfetcher",instance="10.0.0.3:8081"`}
			text += "process_resident_memory_bytes 14680064\n"
		}
		for line := range strings.Lines(text) {
			parts := sample.FindStringSubmatch(strings.TrimSpace(line))
			if parts == nil {
				continue
			}
			name, labels, values := parts[1], parts[2], parts[3]
			if rises := regexp.MustCompile(`_(total|bucket|sum|count)$`); rises.MatchString(name) {
				values = "0+1x240"
			}
			if strings.HasSuffix(name, "_timestamp_seconds") {
				values = "now-1d"
				for part, moment := range moments {
					if strings.Contains(name, part) {
						values = moment
					}
				}
			}
			for _, target := range targets {
				all[name+"{"+strings.Trim(target+","+labels, ",")+"}"] = values
			}
		}
	}
	return all
}

// No panel is empty over a fleet in which everything happens.
func TestDashboard_queries_giveDataOfAFleet(t *testing.T) {
	end := time.Unix(240*60, 0)
	options := promql.EngineOpts{MaxSamples: 1e6, Timeout: time.Minute, Parser: promQL}
	engine, scraped := promql.NewEngine(options), fleet(t).storage(t, end)
	for _, p := range panels(t) {
		for _, target := range p.Targets {
			query, err := engine.NewInstantQuery(t.Context(), scraped, nil, target.Expr, end)
			require.NoError(t, err, p.Title)
			vector, err := query.Exec(t.Context()).Vector()
			require.NoError(t, err, "%s: %s", p.Title, target.Expr)
			assert.NotEmpty(t, vector, "%s: %s", p.Title, target.Expr)
			for label := range labelsIn(target.LegendFormat) {
				if label == "rule" {
					continue // empty where no rule fits
				}
				has := func(s promql.Sample) bool { return s.Metric.Get(label) != "" }
				assert.True(t, slices.ContainsFunc(vector, has), "%s: the legend of %s", p.Title, target.Expr)
			}
		}
	}
}

func labelsIn(legend string) map[string]bool {
	found := map[string]bool{}
	for _, match := range regexp.MustCompile(`\{\{(\w+)\}\}`).FindAllStringSubmatch(legend, -1) {
		found[match[1]] = true
	}
	return found
}

// Certificates live hours or years: what is left of one is judged by its share of that, before it is over.
func TestDashboard_leastLifeLeft_isNotGreenUntilItIsOver(t *testing.T) {
	for _, p := range panels(t) {
		if p.Title != "Least life left" {
			continue
		}
		colour := func(share float64) (name string) {
			for _, step := range p.FieldConfig.Defaults.Thresholds.Steps {
				if step.Value == nil || share >= *step.Value {
					name = step.Color
				}
			}
			return name
		}
		given := history{}
		engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1e6, Timeout: time.Minute, Parser: promQL})
		for _, row := range []struct {
			left string
			want string
		}{{"+70d", "green"}, {"+30d", "green"}, {"+20d", "orange"}, {"+9d", "red"}, {"-1d", "red"}} {
			given[`certfetcher_certificate_expiry_timestamp_seconds{namespace="a",job="b"}`] = "now" + row.left
			var days int
			fmt.Sscanf(row.left, "%dd", &days)
			given[`certfetcher_certificate_not_before_timestamp_seconds{namespace="a",job="b"}`] =
				fmt.Sprintf("now-%dd", 100-days)
			end := time.Unix(240*60, 0)
			query, err := engine.NewInstantQuery(t.Context(), given.storage(t, end), nil, p.Targets[0].Expr, end)
			require.NoError(t, err)
			vector, err := query.Exec(t.Context()).Vector()
			require.NoError(t, err)
			require.Len(t, vector, 1)
			assert.Equal(t, row.want, colour(vector[0].F), row.left)
		}
		return
	}
	assert.Fail(t, "there is no such panel")
}
