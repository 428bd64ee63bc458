package main

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/certfetcher/certfetcher/test/bench/profile"
	"github.com/certfetcher/certfetcher/test/bench/report"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/service"
)

const rounds = 5 // in which two versions take turns

// version is a build of the programs, in bin, with a copy of certfetcher.
type version struct{ name, bin, certfetcher string }

// versions compares the programs with those of BENCH_OLD, a commit, in turn: what else the machine does changes from
// minute to minute.
func (b *bench) versions() {
	old := os.Getenv("BENCH_OLD")
	if old == "" {
		fmt.Println("BENCH_OLD names no commit to compare with")
		return
	}
	source := b.newDir("source")
	fixture.Must(0, fixture.Source(old, source))
	if text, err := exec.Command("make", "-C", source, "build", "VERSION="+old).CombinedOutput(); err != nil {
		panic(fmt.Sprintf("building %s: %v\n%s", old, err, text))
	}
	bin := filepath.Join(source, "bin")
	both := []version{{old, bin, install(filepath.Join(bin, "certfetcher"), "old")}, {"this one", "bin", program}}
	b.write("versions", b.runsOf(both)+"\n"+b.loadsOf(both))
}

// runsOf has the versions of certfetcher take turns at each job.
func (b *bench) runsOf(versions []version) string {
	s := fixture.Must(service.Start(b.newDir("identity"), service.Options{}))
	b.atEnd(s.Stop)
	var rows [][]string
	for _, j := range jobs {
		of := make([][]seen, len(versions)) // by round
		for round := range rounds {
			for range 40 {
				for i, v := range versions {
					command := j.fetch(s, b.newName("volume"))
					command.Path = v.certfetcher
					one, log := run(command)
					one.beyond = one.wall - keyGeneration(log)
					if len(of[i]) == round {
						of[i] = append(of[i], nil)
					}
					of[i][round] = append(of[i][round], one)
				}
			}
		}
		name := j.name
		for i, v := range versions {
			spread := func(what func(once) time.Duration) string {
				medians := fixture.Each(of[i], func(s seen) time.Duration { return s.median(what) })
				slices.Sort(medians)
				return fmt.Sprintf("%s (%.1f to %.1f)", inMilliseconds(median(medians)),
					report.Milliseconds(medians[0]), report.Milliseconds(medians[rounds-1]))
			}
			command := j.fetch(s, b.newName("volume"))
			command.Path = v.certfetcher
			all := slices.Concat(of[i]...)
			rows = append(rows, []string{name, v.name, spread(beyond), spread(processor),
				fmt.Sprintf("%.1f MiB", float64(peak(command).kib)/1024),
				fmt.Sprint(median(fixture.Each(all, func(o once) int64 { return o.faults })))})
			name = ""
		}
	}
	return report.Table([]string{"job, output", "version", "beyond the key", "processor", "peak memory", "page faults"},
		rows)
}

// loadsOf has the versions of certservice take turns under load, with the same devca behind them.
func (b *bench) loadsOf(versions []version) string {
	_, loader := profiled()
	var options []profile.Options
	for _, connections := range []int{manyAtOnce, 256} {
		options = append(options, profile.Options{Key: "ECDSA-P256", Connections: connections, For: 5 * time.Second})
	}
	bins := fixture.Each(versions, func(v version) string { return v.bin })
	var rows [][]string
	for _, c := range fixture.Must(profile.Compare(loader, "bin", bins, options, rounds)) {
		spread := func(of func(profile.Load) float64) string {
			values := slices.SortedFunc(slices.Values(fixture.Each(c.Loads, of)), cmp.Compare)
			return fmt.Sprintf("%.0f (%.0f to %.0f)", values[rounds/2], values[0], values[rounds-1])
		}
		rows = append(rows, []string{fmt.Sprint(c.Connections), versions[slices.Index(bins, c.Program)].name,
			spread(profile.Load.Rate), spread(func(l profile.Load) float64 { return report.Milliseconds(l.P50) }),
			spread(func(l profile.Load) float64 { return report.Milliseconds(l.P99) }),
			spread(func(l profile.Load) float64 { return float64(l.CPUEach().Microseconds()) }),
			fmt.Sprintf("%.0f MiB", float64(c.Loads[rounds-1].Resident)/1024)})
	}
	return report.Table([]string{"connections", "version", "enrolments a second", "median, ms", "p99, ms",
		"processor each, µs", "memory"}, rows)
}
