package manifests

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/stretchr/testify/require"
)

// querier is what a Prometheus would have scraped.
type querier []storage.Series

// storage returns the series with their samples a minute apart, the last ones now.
func (h history) storage(t *testing.T, now time.Time) storage.Queryable {
	t.Helper()
	var all querier
	for text, values := range h {
		metric, err := promQL.ParseMetric(text)
		require.NoError(t, err)
		fields := strings.Fields(values)
		if len(fields) == 1 {
			fields = slices.Repeat(fields, 4*60)
		}
		var samples []chunks.Sample
		for i, field := range fields {
			if field == "_" {
				continue
			}
			at := now.Add(time.Duration(i-len(fields)+1) * time.Minute)
			samples = append(samples, sample{at.UnixMilli(), valueOf(t, field, now)})
		}
		all = append(all, storage.NewListSeries(metric, samples))
	}
	return storage.QueryableFunc(func(_, _ int64) (storage.Querier, error) { return all, nil })
}

func valueOf(t *testing.T, field string, now time.Time) float64 {
	t.Helper()
	if after, err := time.ParseDuration(field); err == nil && field != "0" {
		return float64(now.Add(after).Unix())
	}
	value, err := strconv.ParseFloat(field, 64)
	require.NoError(t, err)
	return value
}

func (q querier) Select(_ context.Context, _ bool, _ *storage.SelectHints,
	matchers ...*labels.Matcher) storage.SeriesSet {
	var found querier
	for _, series := range q {
		matches := true
		for _, m := range matchers {
			matches = matches && m.Matches(series.Labels().Get(m.Name))
		}
		if matches {
			found = append(found, series)
		}
	}
	return &seriesSet{found, -1}
}

func (querier) LabelValues(context.Context, string, *storage.LabelHints,
	...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, nil
}

func (querier) LabelNames(context.Context, *storage.LabelHints,
	...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, nil
}

func (querier) Close() error { return nil }

type seriesSet struct {
	series querier
	at     int
}

func (s *seriesSet) Next() bool                        { s.at++; return s.at < len(s.series) }
func (s *seriesSet) At() storage.Series                { return s.series[s.at] }
func (s *seriesSet) Err() error                        { return nil }
func (s *seriesSet) Warnings() annotations.Annotations { return nil }

// sample is a plain number; t in milliseconds.
type sample struct {
	t int64
	f float64
}

func (s sample) T() int64                      { return s.t }
func (s sample) ST() int64                     { return 0 }
func (s sample) F() float64                    { return s.f }
func (s sample) H() *histogram.Histogram       { return nil }
func (s sample) FH() *histogram.FloatHistogram { return nil }
func (s sample) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (s sample) Copy() chunks.Sample           { return s }
