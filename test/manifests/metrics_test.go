package manifests

import (
	"encoding/json"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"
)

var promQL = parser.NewParser(parser.Options{})

// targetLabels are put on every series by the monitors, not by the programs.
var targetLabels = []string{"namespace", "pod", "job", "instance", "container", "endpoint"}

// rules returns the alerts of a file below deploy/monitoring, checked by Prometheus' own rules for them.
func rules(t *testing.T, file string) []rulefmt.Rule {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(deploy, "monitoring", file))
	require.NoError(t, err)
	var manifest monitoring.PrometheusRule
	require.NoError(t, yaml.Unmarshal(content, &manifest))
	spec, err := yaml.Marshal(manifest.Spec)
	require.NoError(t, err)
	groups, faults := rulefmt.Parse(spec, false, model.UTF8Validation, promQL, slog.New(slog.DiscardHandler))
	require.Empty(t, faults, file)
	var all []rulefmt.Rule
	for _, group := range groups.Groups {
		all = append(all, group.Rules...)
	}
	return all
}

// dashboard returns the queries of the Grafana dashboard by their panels' titles.
func dashboard(t *testing.T) map[string]string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(deploy, "monitoring/dashboard.json"))
	require.NoError(t, err)
	var board struct {
		Panels []struct {
			ID      int
			Type    string
			Title   string
			GridPos struct{ X, W int }
			Targets []struct{ Expr string }
		}
	}
	require.NoError(t, json.Unmarshal(content, &board))
	queries, ids := map[string]string{}, map[int]bool{}
	for _, panel := range board.Panels {
		assert.False(t, ids[panel.ID], "two panels have the id %d", panel.ID)
		ids[panel.ID] = true
		assert.LessOrEqual(t, panel.GridPos.X+panel.GridPos.W, 24, panel.Title)
		assert.Equal(t, panel.Type == "row", len(panel.Targets) == 0, panel.Title)
		for _, target := range panel.Targets {
			queries[panel.Title+": "+target.Expr] = strings.NewReplacer("$__rate_interval", "5m",
				"$namespace", ".*").Replace(target.Expr)
		}
	}
	require.NotEmpty(t, queries)
	return queries
}

// queries returns every PromQL expression under deploy/.
func queries(t *testing.T) map[string]string {
	t.Helper()
	all := dashboard(t)
	for _, file := range []string{"certfetcher-rules.yaml", "certservice-rules.yaml"} {
		for _, rule := range rules(t, file) {
			all[rule.Alert] = rule.Expr
		}
	}
	return all
}

func TestQueries_useWhatTheProgramsExport(t *testing.T) {
	known := exported(t)
	for place, query := range queries(t) {
		expression, err := promQL.ParseExpr(query)
		require.NoError(t, err, place)
		parser.Inspect(expression, func(node parser.Node, _ []parser.Node) error {
			switch n := node.(type) {
			case *parser.VectorSelector:
				if assert.Contains(t, known, n.Name, place) {
					assertMatchers(t, place, known[n.Name], n.LabelMatchers)
				}
			case *parser.AggregateExpr:
				for _, label := range n.Grouping {
					assert.True(t, labelOfOne(known, n.Expr, label), "%s: label %s", place, label)
				}
			}
			return nil
		})
	}
}

func assertMatchers(t *testing.T, place string, metric map[string][]string, matchers []*labels.Matcher) {
	t.Helper()
	for _, m := range matchers {
		if m.Name == model.MetricNameLabel || slices.Contains(targetLabels, m.Name) {
			continue
		}
		assert.Contains(t, metric, m.Name, place)
		for value := range strings.SplitSeq(m.Value, "|") {
			assert.Contains(t, append(metric[m.Name], ""), value, "%s: %s", place, m.Name)
		}
	}
}

// labelOfOne says whether one of the metrics in the expression has the label.
func labelOfOne(known series, expression parser.Expr, label string) bool {
	found := slices.Contains(targetLabels, label)
	parser.Inspect(expression, func(node parser.Node, _ []parser.Node) error {
		if selector, ok := node.(*parser.VectorSelector); ok && known[selector.Name][label] != nil {
			found = true
		}
		return nil
	})
	return found
}

// What is exported is looked at, or it need not be.
func TestDashboard_showsEveryMetric(t *testing.T) {
	text := strings.Join(slices.Collect(maps.Values(dashboard(t))), "\n")
	for name := range exported(t) {
		name = histogramPart.ReplaceAllString(name, "")
		if strings.HasPrefix(name, "certfetcher_") ||
			(strings.HasPrefix(name, "certservice_") && name != "certservice_build_info") {
			assert.Contains(t, text, name)
		}
	}
}

var histogramPart = regexp.MustCompile(`_(bucket|sum|count)$`)
