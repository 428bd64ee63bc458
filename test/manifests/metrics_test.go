package manifests

import (
	"encoding/json"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"github.com/certfetcher/certfetcher/test/fixture"
)

var promQL = parser.NewParser(parser.Options{})

// targetLabels are those that the programs do not choose: the monitors put them on every series, for most.
var targetLabels = strings.Fields("namespace pod job instance container endpoint le __name__")

// rules returns the alerts under deploy/monitoring, checked by Prometheus' own rules for them.
func rules(t *testing.T) (all []rulefmt.Rule) {
	t.Helper()
	for _, object := range everything(t)["monitoring"] {
		if manifest, is := object.(*monitoring.PrometheusRule); is {
			spec, discard := fixture.Must(yaml.Marshal(manifest.Spec)), slog.New(slog.DiscardHandler)
			groups, faults := rulefmt.Parse(spec, false, model.UTF8Validation, promQL, discard)
			require.Empty(t, faults, manifest.Name)
			for _, group := range groups.Groups {
				all = append(all, group.Rules...)
			}
		}
	}
	return all
}

// dashboard returns the queries of the Grafana dashboard by their panels' titles.
func dashboard(t *testing.T) map[string]string {
	t.Helper()
	var board struct {
		Panels []struct {
			ID      int
			Type    string
			Title   string
			GridPos struct{ X, W int }
			Targets []struct{ Expr string }
		}
	}
	text := readFile(t, deploy+"/monitoring/dashboard.json")
	require.NoError(t, json.Unmarshal([]byte(text), &board))
	variables := strings.NewReplacer("$__rate_interval", "5m", "$namespace", ".*")
	queries, ids := map[string]string{}, map[int]bool{}
	for _, panel := range board.Panels {
		assert.False(t, ids[panel.ID], "two panels have the id %d", panel.ID)
		ids[panel.ID] = true
		assert.LessOrEqual(t, panel.GridPos.X+panel.GridPos.W, 24, panel.Title)
		assert.Equal(t, panel.Type == "row", len(panel.Targets) == 0, panel.Title)
		for _, target := range panel.Targets {
			queries[panel.Title+": "+target.Expr] = variables.Replace(target.Expr)
		}
	}
	return queries
}

// Every PromQL expression under deploy/ names series, labels and values of labels that there are.
func TestQueries_useWhatTheProgramsExport(t *testing.T) {
	known, queries := exported(t), dashboard(t)
	for _, rule := range rules(t) {
		queries[rule.Alert] = rule.Expr
	}
	for place, query := range queries {
		expression, err := promQL.ParseExpr(query)
		require.NoError(t, err, place)
		parser.Inspect(expression, func(node parser.Node, _ []parser.Node) error {
			switch n := node.(type) {
			case *parser.VectorSelector:
				assert.Contains(t, known, n.Name, place)
				for _, m := range n.LabelMatchers {
					values, found := known[n.Name][m.Name]
					if slices.Contains(targetLabels, m.Name) {
						continue
					}
					assert.True(t, found, "%s: %s", place, m)
					for value := range strings.SplitSeq(m.Value, "|") {
						assert.Contains(t, append(values, ""), value, "%s: %s", place, m)
					}
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
		if histogramPart.MatchString(name) || name == "certservice_build_info" {
			continue
		}
		if strings.HasPrefix(name, "certfetcher_") || strings.HasPrefix(name, "certservice_") {
			assert.Contains(t, text, name)
		}
	}
}

var histogramPart = regexp.MustCompile(`_(bucket|sum|count)$`)
