package main

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/certfetcher/certfetcher/test/fixture"
)

func TestGrowth_exponent(t *testing.T) {
	power := func(e, noise float64) func(n int) float64 {
		sign := 1.0
		return func(n int) float64 {
			sign = -sign
			return (10 + 0.1*math.Pow(float64(n), e)) * (1 + sign*noise)
		}
	}
	for _, row := range []struct {
		name        string
		sizes       []int
		cost        func(n int) float64
		least, most float64
	}{
		{"constant", []int{1, 10, 100, 1000}, func(int) float64 { return 5 }, 0, 0},
		{"constant, with noise", []int{1, 10, 100, 1000}, power(0, 0.3), 0, 0},
		{"falling", []int{1, 10, 100}, func(n int) float64 { return 100 / float64(n) }, 0, 0},
		{"linear", []int{1, 10, 100, 1000}, power(1, 0), 0.99, 1.01},
		{"linear, with noise", []int{1, 3, 10, 30, 100, 300, 1000}, power(1, 0.03), 0.85, 1.2},
		{"quadratic", []int{1, 3, 10, 30, 100, 300, 1000}, power(2, 0), 1.9, 2.1},
		{"quadratic, three sizes", []int{1, 50, 500}, power(2, 0.03), 1.8, 2.2},
		{"n log n", []int{1, 10, 100, 1000}, func(n int) float64 { return 1 + float64(n)*math.Log(float64(n)+1) },
			1.1, 1.3},
		{"one size", []int{1}, power(2, 0), 0, 0},
		{"two sizes", []int{1, 100}, power(2, 0), 0, 0}, // which say nothing about a power
	} {
		g := growth{row.name, row.sizes, fixture.Each(row.sizes, row.cost)}
		assert.GreaterOrEqual(t, g.exponent(), row.least, row.name)
		assert.LessOrEqual(t, g.exponent(), row.most, row.name)
	}
}

// One that is worse than linear is a fault, and fails make bench.
func TestBench_hold_worseThanLinear_isFault(t *testing.T) {
	b := &bench{}
	sizes := []int{1, 10, 100}
	said := b.hold(growth{"a", sizes, []float64{1, 10, 100}}, growth{"b", sizes, []float64{1, 100, 10_000}})
	assert.Equal(t, "\n| what grows | with the power of |\n|---|---|\n| a | 1.00 |\n| b | 1.92 |\n", said)
	assert.Len(t, b.faults, 1)
	assert.Contains(t, b.faults[0], "b grows with the power of 1.92 of the number, want at most 1.35")
}
