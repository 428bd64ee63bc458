package manifests

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// history is series and their values, one a minute, in the notation of Prometheus' own tests. A single value has
// been so all along; it can be a time, such as now-30d.
type history map[string]string

// readCases reads the rows of a table below testdata.
func readCases(t *testing.T, file string, rows any) {
	t.Helper()
	require.NoError(t, yaml.UnmarshalStrict([]byte(readFile(t, "testdata/"+file)), rows), file)
}

func TestAlerts_fireWhenTheyShould(t *testing.T) {
	var rows []struct {
		Name  string
		Given history
		Fires []string
	}
	readCases(t, "alerts/programs.yaml", &rows)
	require.NotEmpty(t, rows)
	for _, row := range rows {
		t.Run(row.Name, func(t *testing.T) {
			var now []string
			for alert, minutes := range firing(t, row.Given, 240, 1) {
				if minutes[0] {
					now = append(now, alert)
				}
			}
			assert.ElementsMatch(t, row.Fires, now)
		})
	}
}

func TestAlerts_ofACA_wantFailuresThatGoOn(t *testing.T) {
	var rows []struct {
		Name, Failed, Issued string
		Within               int
	}
	readCases(t, "alerts/ca.yaml", &rows)
	require.NotEmpty(t, rows)
	for _, row := range rows {
		t.Run(row.Name, func(t *testing.T) {
			failed, away := totals(t, 5, row.Failed)
			issued, healed := totals(t, 100, row.Issued)
			given := history{"certservice_build_info": "1", requests + `"failed"}`: failed,
				requests + `"issued"}`: issued}
			length := max(away, healed)
			minutes := firing(t, given, quiet+length+59, quiet+length+60)["CertserviceCAFailing"]
			require.Equal(t, row.Within > 0, slices.Contains(minutes, true))
			if row.Within == 0 {
				return
			}
			begun := slices.Index(minutes, true) - quiet
			assert.LessOrEqual(t, begun, row.Within)
			assert.NotContains(t, minutes[quiet+begun:quiet+away], false, "interrupted")
			assert.NotContains(t, minutes[quiet+length+20:], true, "goes on after the CA is back")
		})
	}
}

const (
	quiet    = 20 // minutes before anything happens
	requests = `certservice_requests_total{namespace="certs",ca="RA",outcome=`
)

// totals are the values of a counter: nothing for some minutes, then so many more in each minute, then nothing again.
func totals(t *testing.T, start float64, perMinute string) (values string, minutes int) {
	t.Helper()
	_, more, err := promQL.ParseSeriesDesc("more " + perMinute)
	require.NoError(t, err)
	var text strings.Builder
	fmt.Fprintf(&text, "%vx%d ", start, quiet-1)
	for _, n := range more {
		start += n.Value
		fmt.Fprint(&text, start, " ")
	}
	fmt.Fprintf(&text, "%vx200", start)
	return text.String(), len(more)
}

func TestAlerts_haveARunbookEach(t *testing.T) {
	var documented, alerts []string
	for _, heading := range alertHeading.FindAllStringSubmatch(readFile(t, "../../docs/runbooks.md"), -1) {
		documented = append(documented, heading[1])
	}
	for _, rule := range rules(t) {
		alerts = append(alerts, rule.Alert)
	}
	assert.ElementsMatch(t, alerts, documented)
}

var alertHeading = regexp.MustCompile(`(?m)^#+ (Cert(?:fetcher|service)[A-Z][A-Za-z]+)$`)

// firing returns, for each alert on the program that the history is of, in which of the last minutes up to now it
// fires: its expression has had the same result for as long as the rule says.
func firing(t *testing.T, given history, now, minutes int) map[string][]bool {
	t.Helper()
	end := time.Unix(60*int64(now), 0)
	first := end.Add(-time.Duration(minutes-1) * time.Minute)
	options := promql.EngineOpts{MaxSamples: 1e6, Timeout: time.Minute, Parser: promQL}
	engine, scraped := promql.NewEngine(options), given.storage(t, end)
	alerts, program := map[string][]bool{}, "Certservice"
	if strings.Contains(fmt.Sprint(given), "certfetcher_") {
		program = "Certfetcher"
	}
	for _, rule := range rules(t) {
		if !strings.HasPrefix(rule.Alert, program) {
			continue
		}
		wait := time.Duration(rule.For) / time.Minute
		held := fmt.Sprintf("count_over_time((%s)[%dm:1m]) > %d", rule.Expr, wait+1, wait)
		query, err := engine.NewRangeQuery(t.Context(), scraped, nil, held, first, end, time.Minute)
		require.NoError(t, err, rule.Alert)
		matrix, err := query.Exec(t.Context()).Matrix()
		require.NoError(t, err, rule.Alert)
		alerts[rule.Alert] = make([]bool, minutes)
		for _, series := range matrix {
			for _, point := range series.Floats {
				alerts[rule.Alert][(point.T-first.UnixMilli())/60_000] = true
			}
		}
	}
	return alerts
}

// storage is what a Prometheus would have scraped since time zero. A single value stands for four hours.
func (h history) storage(t *testing.T, now time.Time) storage.Queryable {
	t.Helper()
	var all []storage.Series
	for name, values := range h {
		if at, isTime := strings.CutPrefix(values, "now"); isTime {
			sign := map[byte]time.Duration{'-': -1, '+': 1}[at[0]]
			after := sign * time.Duration(fixture.Must(model.ParseDuration(at[1:])))
			values = strconv.FormatInt(now.Add(after).Unix(), 10)
		}
		if !strings.Contains(values, "x") {
			values += "x240"
		}
		metric, sequence, err := promQL.ParseSeriesDesc(name + " " + values)
		require.NoError(t, err, "%s: %s", name, values)
		chunk := chunkenc.NewXORChunk()
		appender := fixture.Must(chunk.Appender())
		for minute, value := range sequence {
			if !value.Omitted {
				appender.Append(0, int64(minute)*60_000, value.Value)
			}
		}
		all = append(all, &storage.SeriesEntry{Lset: metric, SampleIteratorFn: chunk.Iterator})
	}
	querier := &storage.MockQuerier{SelectMockFunction: func(_ bool, _ *storage.SelectHints,
		matchers ...*labels.Matcher) storage.SeriesSet {
		differs := func(s storage.Series) bool {
			return slices.ContainsFunc(matchers, func(m *labels.Matcher) bool {
				return !m.Matches(s.Labels().Get(m.Name))
			})
		}
		matching := slices.DeleteFunc(slices.Clone(all), differs)
		return &seriesSet{storage.EmptySeriesSet(), matching, -1}
	}}
	return &storage.MockQueryable{MockQuerier: querier}
}

type seriesSet struct {
	storage.SeriesSet // without errors and warnings
	series            []storage.Series
	at                int
}

func (s *seriesSet) Next() bool         { s.at++; return s.at < len(s.series) }
func (s *seriesSet) At() storage.Series { return s.series[s.at] }
