package main

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/certfetcher/certfetcher/test/bench/report"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/service"
)

// mostBytes is what the program may have.
const mostBytes = 9_600_000

// job is something that certfetcher does, and that other programs can do.
type job struct {
	name, key, identity, output string
	// atLeast is how many times longer the others take on any machine.
	atLeast float64
}

var jobs = []job{
	{"P-256, PEM identity, PEM", "ECDSA-P256", "pem", "PEM", 1.2},
	{"P-256, JKS identity, PKCS#12", "ECDSA-P256", "jks", "P12", 1.2},
	{"RSA-2048, PEM identity, PKCS#12", "RSA-2048", "pem", "P12", 0}, // what it takes to find primes is luck
}

// keytoolJob is measured by itself: a JVM starts four times for it.
var keytoolJob = job{"P-256, JKS identity, JKS", "ECDSA-P256", "jks", "JKS", 5}

//go:embed others.sh
var others string

func (b *bench) programs() {
	size := fixture.Must(os.Stat(program)).Size()
	b.write("size", fmt.Sprintf("%s has %.2f MB, and may have %.1f MB.\n", filepath.Base(program), float64(size)/1e6,
		mostBytes/1e6))
	if size > mostBytes {
		b.fault("%s has %d bytes, want at most %d", program, size, mostBytes)
	}
	b.compare("programs", either(b, 10, 50), jobs, "openssl", "curl")
}

func (b *bench) keytool() {
	b.compare("keytool", either(b, 2, 20), []job{keytoolJob}, "openssl", "curl", "keytool")
}

// compare has certfetcher and other programs do each job in turn, and writes a table.
func (b *bench) compare(part string, rounds int, jobs []job, programs ...string) {
	if !b.installed(programs...) {
		return
	}
	s := fixture.Must(service.Start(b.newDir("identity"), service.Options{}))
	b.atEnd(s.Stop)
	var rows [][]string
	for _, j := range jobs {
		var ours, theirs seen
		for round := range rounds + 1 {
			one, log := run(j.fetch(s, b.newName("volume")))
			one.beyond = one.wall - keyGeneration(log)
			other, _ := run(j.others(s, b.newName("others")))
			if round > 0 { // the first is to warm up
				ours, theirs = append(ours, one), append(theirs, other)
			}
		}
		memory := peak(j.fetch(s, b.newName("volume")))
		otherMemory := peak(j.others(s, b.newName("others")))
		ratio := float64(theirs.median(wall)) / float64(ours.median(wall))
		rows = append(rows, append([]string{j.name, "certfetcher"}, ours.cells(memory)...),
			append([]string{"", strings.Join(programs, " + ")}, theirs.cells(otherMemory)...),
			[]string{"", "**times certfetcher**", fmt.Sprintf("**%.1f**", ratio), "", "", "",
				fmt.Sprintf("%.1f", float64(theirs.median(processor))/float64(ours.median(processor))),
				fmt.Sprintf("%.1f", float64(otherMemory.kib)/float64(memory.kib)), "", "", ""})
		if ratio < j.atLeast {
			b.fault("%s: other programs take %.1f times as long as certfetcher, want %.1f", j.name, ratio, j.atLeast)
		}
	}
	b.write(part, report.Table([]string{"job, output", "by", "median", "least", "most", "beyond the key", "processor",
		"peak memory", "page faults", "processes", "threads"}, rows))
}

// fetch is a certfetcher that does the job.
func (j job) fetch(s *service.Service, volume string) *exec.Cmd {
	command := exec.Command(program)
	command.Env = s.Environment(volume, "OUTPUT_TYPE="+j.output, "KEY_ALGORITHM="+j.key, "SANS=app.example.org",
		"KEYSTORE_PATH="+s.Dir+"/client."+j.identity, "TRUSTSTORE_PATH="+s.Dir+"/truststore."+j.identity,
		"KEYSTORE_PASSWORD="+fixture.Password, "TRUSTSTORE_PASSWORD="+fixture.Password)
	return command
}

// others is the script that does the same. It has its identity as PEM, which is the only one that curl reads beside
// PKCS#12.
func (j job) others(s *service.Service, volume string) *exec.Cmd {
	command := exec.Command("sh", "-c", others)
	command.Env = []string{"PATH=" + os.Getenv("PATH"), "URL=" + s.URL + fixture.CAName, "IDENTITY=" + s.Dir,
		"OUT=" + volume, "KEY=" + j.key, "OUTPUT=" + j.output}
	return command
}

// once is what a run of a program took.
type once struct {
	wall, beyond, processor time.Duration
	faults                  int64 // page faults
}

// run runs a program, which must succeed. Processes that it waits for count as well.
func run(command *exec.Cmd) (took once, log []byte) {
	start := time.Now()
	log, err := command.CombinedOutput()
	took.wall = time.Since(start)
	if err != nil {
		panic(fmt.Sprintf("%s: %v\n%s", command.Path, err, log))
	}
	usage := command.ProcessState.SysUsage().(*syscall.Rusage)
	took.processor = command.ProcessState.SystemTime() + command.ProcessState.UserTime()
	took.faults = usage.Minflt + usage.Majflt
	return took, log
}

var madeKey = regexp.MustCompile(`"msg":"made a key pair".*"duration_ms":([\d.]+)`)

// keyGeneration reads from the log how long the key took, which is mostly luck in finding primes.
func keyGeneration(log []byte) time.Duration {
	took := string(madeKey.FindSubmatch(log)[1])
	return time.Duration(fixture.Must(strconv.ParseFloat(took, 64)) * float64(time.Millisecond))
}

// seen are some runs.
type seen []once

func wall(o once) time.Duration      { return o.wall }
func beyond(o once) time.Duration    { return o.beyond }
func processor(o once) time.Duration { return o.processor }

func (s seen) median(of func(once) time.Duration) time.Duration { return median(fixture.Each(s, of)) }

func (s seen) cells(memory traced) []string {
	all := fixture.Each(s, wall)
	beyondKey := "" // other programs do not say
	if s.median(beyond) > 0 {
		beyondKey = inMilliseconds(s.median(beyond))
	}
	return []string{inMilliseconds(median(all)), inMilliseconds(slices.Min(all)), inMilliseconds(slices.Max(all)),
		beyondKey, inMilliseconds(s.median(processor)), fmt.Sprintf("%.1f MiB", float64(memory.kib)/1024),
		report.Thousands(int(median(fixture.Each(s, func(o once) int64 { return o.faults })))),
		fmt.Sprint(memory.processes), fmt.Sprint(memory.threads)}
}

func median[T time.Duration | int64 | float64](values []T) T {
	return slices.Sorted(slices.Values(values))[len(values)/2]
}

func inMilliseconds(d time.Duration) string { return fmt.Sprintf("%.1f ms", report.Milliseconds(d)) }

// installed says whether the programs are there. CI must not pass without them.
func (b *bench) installed(programs ...string) bool {
	for _, name := range programs {
		if _, err := exec.LookPath(name); err != nil {
			fmt.Printf("%s is not installed: not measured on this machine\n", name)
			if os.Getenv("CI") == "true" {
				b.fault("%s is missing, and CI must not pass without it", name)
			}
			return false
		}
	}
	return true
}
