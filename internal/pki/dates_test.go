package pki

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

var (
	year1950 = time.Date(1950, 1, 1, 0, 0, 0, 0, time.UTC)
	year2026 = time.Date(2026, 11, 27, 12, 0, 0, 500, time.UTC)
	year9999 = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
)

func TestMoment_ofAnySpan(t *testing.T) {
	assert.Equal(t, year2026.Add(40*time.Minute), Moment(year2026, year2026.Add(time.Hour), 2./3))
	assert.Equal(t, year2026.Add(-time.Hour), Moment(year2026, year2026.Add(-2*time.Hour), 0.5))
	assert.Equal(t, 7316, Moment(year1950, year9999, 2./3).Year())
	assert.Equal(t, 9999, Moment(year2026, year9999, 0.9999999999999999).Year())
	assert.Equal(t, 7342, Moment(year2026, year9999, 2./3).Year())
	assert.Equal(t, 2316, Moment(year2026, year2026.AddDate(290, 0, 0), 0.9999999999999999).Year())
}

func TestDays_ofAnySpan(t *testing.T) {
	assert.Equal(t, 0, Days(year2026, year2026.Add(time.Hour)))
	assert.Equal(t, 30, Days(year2026, year2026.AddDate(0, 0, 30)))
	assert.Equal(t, 29, Days(year2026, year2026.AddDate(0, 0, 30).Add(-1)))
	assert.Equal(t, -1, Days(year2026, year2026.Add(-1)))
	assert.Equal(t, -1, Days(year2026, year2026.AddDate(0, 0, -1)))
	assert.Equal(t, -2, Days(year2026, year2026.AddDate(0, 0, -1).Add(-1)))
	assert.Equal(t, 2912112, Days(year2026, year9999))
}
