package manifests

import (
	"flag"
	"fmt"
	"html"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

var page = flag.String("page", "", "write the dashboard over the simulated fleet as HTML into this file")

// The dashboard can be looked at without a Grafana: its panels in their places, with what Prometheus answers.
func TestDashboard_isDrawn(t *testing.T) {
	d := drawing{t: t, end: time.Unix(240*60, 0),
		engine: promql.NewEngine(promql.EngineOpts{MaxSamples: 1e7, Timeout: time.Minute, Parser: promQL})}
	given := fleet(t)
	for series := range given { // one pod does worse than the other
		if strings.Contains(series, "app-1") {
			switch name, _, _ := strings.Cut(series, "{"); name {
			case "certfetcher_certificate_expiry_timestamp_seconds":
				given[series] = "now+5d"
			case "certfetcher_renewal_failed_tries", "certfetcher_renewal_last_failure_timestamp_seconds":
				delete(given, series)
			}
		}
	}
	d.scraped = given.storage(t, d.end)
	d.text.WriteString(`<!doctype html><meta charset="utf-8"><title>Dashboard</title><style>
body{background:#111217;color:#ccccdc;font:12px sans-serif;width:1440px}
div{position:absolute;box-sizing:border-box;border:1px solid #333;padding:4px;overflow:hidden}
big{display:block;font-size:26px;text-align:center;padding:8px}td,th{padding:2px 10px;text-align:left}
</style>`)
	for _, p := range panels(t) {
		before := d.text.Len()
		fmt.Fprintf(&d.text, `<div style="left:%dpx;top:%dpx;width:%dpx;height:%dpx" title="%s"><b>%s</b>`,
			60*p.GridPos.X, 30*p.GridPos.Y, 60*p.GridPos.W-4, 30*p.GridPos.H-4, html.EscapeString(p.Description),
			html.EscapeString(ranges.Replace(p.Title)))
		kinds := map[string]func(panel){"row": func(panel) {}, "stat": d.stat, "table": d.table, "timeseries": d.series}
		draw := kinds[p.Type]
		require.NotNil(t, draw, "%s is of type %s", p.Title, p.Type)
		draw(p)
		d.text.WriteString("</div>\n")
		assert.Greater(t, d.text.Len(), before)
	}
	if *page != "" {
		require.NoError(t, os.WriteFile(*page, []byte(d.text.String()), 0o644))
	}
}

type drawing struct {
	t       *testing.T
	engine  *promql.Engine
	scraped storage.Queryable
	end     time.Time
	text    strings.Builder
}

func (d *drawing) now(expr string) promql.Vector {
	query := fixture.Must(d.engine.NewInstantQuery(d.t.Context(), d.scraped, nil, expr, d.end))
	return fixture.Must(query.Exec(d.t.Context()).Vector())
}

func (d *drawing) stat(p panel) {
	for _, s := range d.now(p.Targets[0].Expr) {
		text := shown(p.FieldConfig.Defaults.Unit, s.F)
		fmt.Fprintf(&d.text, `<big style="background:%s">%s</big>`, p.colour(s.F), text)
	}
}

// colour is that of the thresholds; none without them.
func (p panel) colour(v float64) (name string) {
	for _, step := range p.FieldConfig.Defaults.Thresholds.Steps {
		if step.Value == nil || v >= *step.Value {
			name = "dark" + step.Color
		}
	}
	return name
}

// shown is a value as people read it.
func shown(unit string, v float64) string {
	switch {
	case unit == "percentunit":
		return fmt.Sprintf("%.0f %%", 100*v)
	case unit == "bytes":
		return fmt.Sprintf("%.1f MiB", v/(1<<20))
	case unit == "s" && v >= 86400:
		return fmt.Sprintf("%.1f days", v/86400)
	case unit == "s":
		return fmt.Sprintf("%.3g s", v)
	}
	return fmt.Sprintf("%.4g", v)
}

// table joins the results by namespace and pod, as Grafana's transformation does.
func (d *drawing) table(p panel) {
	rows := map[string]map[string]string{}
	for _, target := range p.Targets {
		for _, s := range d.now(target.Expr) {
			key := s.Metric.Get("namespace") + "/" + s.Metric.Get("pod")
			if rows[key] == nil {
				rows[key] = map[string]string{}
			}
			s.Metric.Range(func(l labels.Label) { rows[key][l.Name] = l.Value })
			text := fmt.Sprintf("%.4g", s.F)
			if strings.HasSuffix(target.Expr, "* 1000)") {
				text = time.UnixMilli(int64(s.F)).Sub(d.end).Round(time.Minute).String()
			}
			rows[key]["Value #"+target.RefID] = text
		}
	}
	d.text.WriteString("<table>")
	columns := slices.SortedFunc(maps.Keys(p.order()), func(a, b string) int { return p.order()[a] - p.order()[b] })
	for _, column := range columns {
		name := column
		if renamed := p.Transformations[1].Options.RenameByName[column]; renamed != "" {
			name = renamed
		}
		fmt.Fprintf(&d.text, "<th>%s</th>", name)
	}
	for _, key := range slices.Sorted(maps.Keys(rows)) {
		d.text.WriteString("<tr>")
		for _, column := range columns {
			fmt.Fprintf(&d.text, "<td>%s</td>", html.EscapeString(rows[key][column]))
		}
	}
	d.text.WriteString("</table>")
	assert.Len(d.t, rows, 2, "a row for each pod")
}

func (p panel) order() map[string]int { return p.Transformations[1].Options.IndexByName }

// series draws lines, or bars where the panel has some.
func (d *drawing) series(p panel) {
	step := 5 * time.Minute
	bars := p.FieldConfig.Defaults.Custom.DrawStyle == "bars"
	if bars {
		step = time.Hour
	}
	width, height := float64(60*p.GridPos.W-100), float64(30*p.GridPos.H-80)
	var drawn []promql.Series
	var legends []string
	low, high := 0.0, 0.0
	for _, target := range p.Targets {
		query := fixture.Must(d.engine.NewRangeQuery(d.t.Context(), d.scraped, nil, target.Expr,
			d.end.Add(-3*time.Hour), d.end, step))
		for _, s := range fixture.Must(query.Exec(d.t.Context()).Matrix()) {
			legend := label.ReplaceAllStringFunc(target.LegendFormat, func(l string) string {
				return s.Metric.Get(strings.Trim(l, "{}"))
			})
			drawn, legends = append(drawn, s), append(legends, legend)
			for _, f := range s.Floats {
				low, high = min(low, f.F), max(high, f.F)
			}
		}
	}
	assert.NotEmpty(d.t, drawn, p.Title)
	most := shown(p.FieldConfig.Defaults.Unit, high)
	fmt.Fprintf(&d.text, `<br>%s<br><svg width="%.0f" height="%.0f">`, most, width, height)
	at := func(f promql.FPoint) (x, y float64) {
		passed := f.T - d.end.Add(-3*time.Hour).UnixMilli()
		return width * float64(passed) / 1.2e7, height - height*(f.F-low)/max(high-low, 1e-9)
	}
	for i, s := range drawn {
		colour := fmt.Sprintf("hsl(%d 60%% 60%%)", i*67%360)
		var points strings.Builder
		for _, f := range s.Floats {
			x, y := at(f)
			if bars {
				fmt.Fprintf(&d.text, `<rect x="%.0f" y="%.1f" width="8" height="%.1f" fill="%s"/>`,
					x+9*float64(i), y, height-y, colour)
			}
			fmt.Fprintf(&points, "%.1f,%.1f ", x, y)
		}
		if !bars {
			fmt.Fprintf(&d.text, `<polyline points="%s" fill="none" stroke="%s"/>`, &points, colour)
		}
	}
	fmt.Fprintf(&d.text, "</svg><br>%s", html.EscapeString(strings.Join(legends, " · ")))
}

var label = regexp.MustCompile(`\{\{\w+\}\}`)
