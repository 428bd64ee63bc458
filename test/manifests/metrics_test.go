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

// panel is one of the Grafana dashboard's, as far as it is looked at here.
type panel struct {
	ID                       int
	Type, Title, Description string
	GridPos                  struct{ X, Y, W, H int }
	Targets                  []struct{ RefID, Expr, LegendFormat string }
	Links                    []struct{ URL string }
	Transformations          []struct {
		Options struct {
			IndexByName  map[string]int
			RenameByName map[string]string
		}
	}
	FieldConfig struct {
		Defaults struct {
			Unit       string
			Thresholds struct {
				Steps []struct {
					Color string
					Value *float64
				}
			}
			Custom struct{ DrawStyle string }
		}
	}
}

// ranges are what takes the place of the dashboard's variables.
var ranges = strings.NewReplacer("$__rate_interval", "5m", "$window", "1h", "$namespace", ".*", "$job", ".*")

// panels returns those of the dashboard, with queries that Prometheus understands.
func panels(t *testing.T) []panel {
	t.Helper()
	var board struct{ Panels []panel }
	text := readFile(t, deploy+"/monitoring/dashboard.json")
	require.NoError(t, json.Unmarshal([]byte(text), &board))
	for _, p := range board.Panels {
		for i := range p.Targets {
			p.Targets[i].Expr = ranges.Replace(p.Targets[i].Expr)
		}
	}
	return board.Panels
}

// dashboard returns the queries by their panels' titles.
func dashboard(t *testing.T) map[string]string {
	t.Helper()
	queries := map[string]string{}
	for _, p := range panels(t) {
		for _, target := range p.Targets {
			queries[p.Title+": "+target.Expr] = target.Expr
		}
	}
	return queries
}

var headings = regexp.MustCompile(`(?m)^#+ (.*)$`)

// Each panel says what it shows; links lead to a heading of a document; nothing is upon another.
func TestDashboard_panels_areDescribedAndInTheirPlaces(t *testing.T) {
	ids, taken := map[int]bool{}, map[[2]int]string{}
	for _, p := range panels(t) {
		assert.False(t, ids[p.ID], "two panels have the id %d", p.ID)
		ids[p.ID] = true
		assert.LessOrEqual(t, p.GridPos.X+p.GridPos.W, 24, p.Title)
		assert.Equal(t, p.Type == "row", len(p.Targets) == 0, p.Title)
		assert.Equal(t, p.Type == "row", p.Description == "", "%s: a description", p.Title)
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				assert.Empty(t, taken[at], "%s is upon another panel", p.Title)
				taken[at] = p.Title
			}
		}
		for _, link := range p.Links {
			_, document, _ := strings.Cut(link.URL, "/docs/")
			path, anchor, found := strings.Cut(document, "#")
			require.True(t, found, link.URL)
			anchors := headings.FindAllStringSubmatch(strings.ToLower(readFile(t, "../../docs/"+path)), -1)
			assert.True(t, slices.ContainsFunc(anchors, func(h []string) bool { return h[1] == anchor }), link.URL)
		}
	}
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
