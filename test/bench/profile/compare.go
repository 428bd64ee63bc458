package profile

import (
	"fmt"
	"io"
	"os"
	"slices"
)

// Compared are the loads of one program, a load for each round.
type Compared struct {
	Program string // the directory that it is in
	Options
	Loads []Load
}

// Compare measures several programs, certservice in a directory each, by the same loads and with the same devca: in
// turn, since what else the machine does changes from minute to minute.
func Compare(loader, devca string, programs []string, options []Options, rounds int) ([]Compared, error) {
	var all []Compared
	for _, o := range options {
		for _, program := range programs {
			all = append(all, Compared{Program: program, Options: o})
		}
	}
	for range rounds {
		for i := range all {
			l, err := measureOnce(loader, devca, &all[i])
			if err != nil {
				return nil, err
			}
			all[i].Loads = append(all[i].Loads, l)
		}
	}
	return all, nil
}

func measureOnce(loader, devca string, c *Compared) (l Load, err error) {
	dir, err := os.MkdirTemp("", "compare-")
	if err != nil {
		return l, err
	}
	defer os.RemoveAll(dir)
	s, err := StartStack(c.Program, devca, dir, c.Environment...)
	if err != nil {
		return l, err
	}
	defer s.Stop()
	return Measured(loader, s, c.Options)
}

// WriteCompared prints a row for each, with medians over the rounds, and from the least to the most.
func WriteCompared(w io.Writer, all []Compared) {
	fmt.Fprintf(w, "%-14s %-11s %11s %22s %26s %26s %20s %8s\n", "program", "keys", "connections", "enrolments/s",
		"p50 ms", "p99 ms", "µs of CPU each", "MiB")
	for _, c := range all {
		spread := func(of func(Load) float64, form string) string {
			var values []float64
			for _, l := range c.Loads {
				values = append(values, of(l))
			}
			slices.Sort(values)
			return fmt.Sprintf(form+" ("+form+"-"+form+")", values[len(values)/2], values[0], values[len(values)-1])
		}
		fmt.Fprintf(w, "%-14s %-11s %11d %22s %26s %26s %20s %8.0f\n", c.Program, c.Key, c.Connections,
			spread(Load.Rate, "%.0f"),
			spread(func(l Load) float64 { return milliseconds(l.P50) }, "%.1f"),
			spread(func(l Load) float64 { return milliseconds(l.P99) }, "%.1f"),
			spread(func(l Load) float64 { return float64(l.CPUEach().Microseconds()) }, "%.0f"),
			float64(c.Loads[len(c.Loads)-1].Resident)/1024)
	}
}
