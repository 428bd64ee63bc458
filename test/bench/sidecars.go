package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/test/bench/report"
	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/service"
)

// host is one with idle sidecars. Each has a volume of its own, and all have the same program.
type host struct {
	*bench
	service *service.Service
	all     []*fixture.Process
}

func (b *bench) newHost() *host {
	h := &host{bench: b, service: fixture.Must(service.Start(b.newDir("identity"), service.Options{}))}
	b.atEnd(h.service.Stop)
	b.atEnd(h.stop)
	return h
}

// have starts sidecars until there are so many, and waits until they have nothing to do.
func (h *host) have(n int) {
	const atOnce = 4 // more would wait for a processor, and take memory meanwhile
	for begun := len(h.all); begun < n; begun = len(h.all) {
		for range min(atOnce, n-begun) {
			h.all = append(h.all, fixture.Must(fixture.Start(program, h.service.Environment(h.newName("volume"),
				"MODE=sidecar", "HEALTH_ADDR=127.0.0.1:0")...)))
		}
		for _, p := range h.all[begun:] {
			awaitIdle(p)
		}
	}
	time.Sleep(either(h.bench, 200*time.Millisecond, 2*time.Second)) // what the runtime has to do after that
}

func (h *host) stop() {
	for _, p := range h.all {
		_ = p.Process.Signal(os.Interrupt)
	}
	for _, p := range h.all {
		_ = p.Wait()
	}
	h.all = nil
}

// sidecars is what idle sidecars on one host hold.
func (b *bench) sidecars() {
	sizes := either(b, []int{1, 5, 25}, []int{1, 10, 50, 100, 200, 500})
	h := b.newHost()
	private, all := growth{what: "private memory", sizes: sizes}, growth{what: "all memory", sizes: sizes}
	var rows [][]string
	for _, n := range sizes {
		h.have(n)
		var sum held
		for _, p := range h.all {
			sum.add(p.Process.Pid)
		}
		private.costs = append(private.costs, float64(sum.private)/1024)
		all.costs = append(all.costs, float64(sum.proportional)/1024)
		each := func(kib int) string { return fmt.Sprintf("%.1f MiB", float64(kib)/1024/float64(n)) }
		rows = append(rows, []string{report.Thousands(n), each(sum.private), each(sum.shared), each(sum.proportional),
			fmt.Sprintf("%.0f MiB", float64(sum.proportional)/1024),
			fmt.Sprintf("%.1f", float64(sum.threads)/float64(n)),
			fmt.Sprintf("%.1f", float64(sum.files)/float64(n))})
	}
	// What a single one holds is private, the program included.
	b.write("sidecars", report.Table([]string{"sidecars", "private, each", "shared, each",
		"private and a part of the shared, each", "all together", "threads, each", "open files, each"}, rows)+
		b.hold(private.from(1), all))
	b.draw("growth-sidecars", plotOf("Idle sidecars on a host", "sidecars", "MiB", private, all))
}

// idle is the processor time that idle sidecars take: few, and many. What they do once a minute, and the runtime every
// other minute, is in it. So it takes minutes, and a short benchmark does without it.
func (b *bench) idle() {
	if b.short {
		return
	}
	const interval = 2 * time.Minute
	var rows [][]string
	var each []float64 // from few to many
	for _, n := range []int{500, 10} {
		h := b.newHost()
		h.have(n)
		used := make([]time.Duration, n)
		for i, p := range h.all {
			used[i] = -timeOnProcessor(p.Process.Pid)
		}
		time.Sleep(interval)
		sum := time.Duration(0)
		for i, p := range h.all {
			used[i] += timeOnProcessor(p.Process.Pid)
			sum += used[i]
		}
		h.stop()
		perDay := func(of time.Duration) float64 { return of.Seconds() * float64(24*time.Hour/interval) }
		each = slices.Insert(each, 0, perDay(sum)/float64(n))
		rows = slices.Insert(rows, 0, []string{report.Thousands(n), fmt.Sprintf("%.1f s", perDay(sum)/float64(n)),
			fmt.Sprintf("%.1f s", perDay(slices.Max(used))), fmt.Sprintf("%.0f s", perDay(sum))})
	}
	if each[1] > 5*each[0] { // some collect garbage meanwhile, and some get no watcher from the kernel
		b.fault("each of 500 idle sidecars takes %.1f s of a processor a day, each of 10 %.1f s", each[1], each[0])
	}
	b.write("idle", report.Table([]string{"sidecars", "processor per day, each", "the one with the most",
		"all together"}, rows))
}

// awaitIdle waits until a sidecar has published and has nothing else to do.
func awaitIdle(p *fixture.Process) {
	for end := time.Now().Add(chaos.Deadline); !strings.Contains(p.Logged(), "the next renewal is planned"); {
		if time.Now().After(end) {
			panic("a sidecar is not ready: " + p.Logged())
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// timeOnProcessor is for how long the threads that a process has now have had a processor: to the nanosecond, where
// chaos.ProcessorTime has steps of 10 ms.
func timeOnProcessor(pid int) (sum time.Duration) {
	for _, task := range fixture.Must(filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))) {
		nanoseconds, _, _ := strings.Cut(string(fixture.Must(os.ReadFile(task))), " ")
		sum += time.Duration(fixture.Must(strconv.Atoi(nanoseconds)))
	}
	return sum
}

// held is what processes hold: memory in KiB, that of each alone, that which others have as well, and the first with a
// share of the second.
type held struct{ private, shared, proportional, threads, files int }

var rollup = regexp.MustCompile(`(?m)^(\w+): +(\d+) kB$`)

func (h *held) add(pid int) {
	memory := map[string]int{}
	file := fixture.Must(os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid)))
	for _, match := range rollup.FindAllStringSubmatch(string(file), -1) {
		memory[match[1]] = fixture.Must(strconv.Atoi(match[2]))
	}
	h.private += memory["Private_Clean"] + memory["Private_Dirty"]
	h.shared += memory["Shared_Clean"] + memory["Shared_Dirty"]
	h.proportional += memory["Pss"]
	h.threads += len(fixture.Must(os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))))
	h.files += len(fixture.Must(os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))))
}
