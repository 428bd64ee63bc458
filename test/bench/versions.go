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

// version is a build of the programs.
type version struct{ name, bin string }

// versions compares the programs with those of BENCH_OLD, a commit, in turn: what else the machine does changes from
// minute to minute.
func (b *bench) versions() {
	old := os.Getenv("BENCH_OLD")
	if old == "" {
		fmt.Println("BENCH_OLD names no commit to compare with")
		return
	}
	both := []version{{old, b.buildOf(old)}, {"this one", "bin"}}
	b.write("versions", b.runsOf(both)+"\n"+b.loadsOf(both))
}

// buildOf builds the programs of a commit of this repository.
func (b *bench) buildOf(commit string) string {
	source := b.newDir("source")
	archive := filepath.Join(b.dir, "source.tar")
	for _, command := range []*exec.Cmd{
		exec.Command("git", "archive", "--output", archive, commit),
		exec.Command("tar", "-xf", archive, "-C", source),
		exec.Command("make", "-C", source, "build", "VERSION="+commit),
	} {
		if text, err := command.CombinedOutput(); err != nil {
			panic(fmt.Sprintf("%s: %v\n%s", command, err, text))
		}
	}
	return filepath.Join(source, "bin")
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
					command.Path = installed(filepath.Join(v.bin, "certfetcher"))
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
				return fmt.Sprintf("%s (%.1f to %.1f)", inMilliseconds(median(medians)), milliseconds(medians[0]),
					milliseconds(medians[rounds-1]))
			}
			command := j.fetch(s, b.newName("volume"))
			command.Path = installed(filepath.Join(v.bin, "certfetcher"))
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
	_, loader := b.profiled()
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
			spread(profile.Load.Rate), spread(func(l profile.Load) float64 { return milliseconds(l.P50) }),
			spread(func(l profile.Load) float64 { return milliseconds(l.P99) }),
			spread(func(l profile.Load) float64 { return float64(l.CPUEach().Microseconds()) }),
			fmt.Sprintf("%.0f MiB", float64(c.Loads[rounds-1].Resident)/1024)})
	}
	return report.Table([]string{"connections", "version", "enrolments a second", "median, ms", "p99, ms",
		"processor each, µs", "memory"}, rows)
}
