// Command processes has small storms of real certfetcher processes on loopback, with certservice, and devca behind what
// limits its rate, beside the simulation of the same numbers. It writes both into docs/storms.md, and ends with 1 where
// they are far apart. It takes the programs from bin, where make build puts them.
package main

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/storm"
)

// realStorm is one of certfetcher processes.
type realStorm struct {
	processes int
	within    time.Duration // in which they start
	perSecond float64       // certificates of the CA
	timeout   time.Duration // REQUEST_TIMEOUT
}

// In the first all can wait for their answer; in the others most are refused, and asked to come back. More processes in
// a second would measure how fast this machine starts them.
var realStorms = []realStorm{
	{300, 10 * time.Second, 25, 30 * time.Second},
	{300, 20 * time.Second, 8, 10 * time.Second},
}

// By how much the simulation may be wrong: by the larger of a share and a number.
const (
	wrongShare    = 0.15
	wrongSeconds  = 2
	wrongRequests = 30
)

func main() {
	table := "| processes | CA | `REQUEST_TIMEOUT` | | all served | half served | busiest second at the CA " +
		"| at the CA at once | refused | wasted |\n|---|---|---|---|---|---|---|---|---|---|\n"
	wrong := false
	for _, s := range realStorms {
		settings := s.settings()
		foretold := simulated(settings)
		measured := s.undisturbed("bin", settings)
		wrong = wrong || measured.far(foretold, s.processes)
		rows := fmt.Sprintf("| %d within %.0f s | %g/s | %.0f s | measured | %s\n| | | | simulated | %s\n", s.processes,
			s.within.Seconds(), s.perSecond, s.timeout.Seconds(), measured, foretold)
		fmt.Print(rows)
		table += rows
	}
	costs := refusal("bin")
	told := fmt.Sprintf("\nTo refuse a client, the handshake included, took certservice %.2f ms of a processor.\n",
		1000*costs.Seconds())
	fmt.Print(told)
	table += told
	storm.Write("processes", table)
	if wrong {
		fmt.Println("the simulation is wrong")
		os.Exit(1)
	}
}

// settings are those of the simulation, with one replica.
func (s realStorm) settings() storm.Settings {
	settings := storm.Defaults()
	settings.Pods, settings.PerSecond, settings.Workers, settings.Replicas = s.processes, s.perSecond, 2, 1
	settings.Within, settings.Timeout = s.within, s.timeout
	return settings
}

// outcome is what came of a storm.
type outcome struct {
	all, half        time.Duration // from the first start
	peakCA, mostAtCA int           // requests in the busiest second, and at the same time
	refused, wasted  int           // requests, and certificates
}

func (o outcome) String() string {
	return fmt.Sprintf("%.1f s | %.1f s | %d | %d | %d | %d |", o.all.Seconds(), o.half.Seconds(), o.peakCA, o.mostAtCA,
		o.refused, o.wasted)
}

func simulated(settings storm.Settings) outcome {
	r := storm.Play(settings)
	return outcome{r.All, r.Median, r.PeakCA, r.MostAtCA, r.Tries - r.Pods, r.Wasted}
}

func (o outcome) far(foretold outcome, processes int) bool {
	return o.wasted != foretold.wasted ||
		far(o.all.Seconds(), foretold.all.Seconds(), wrongSeconds) ||
		far(o.half.Seconds(), foretold.half.Seconds(), wrongSeconds) ||
		far(float64(o.peakCA), float64(foretold.peakCA), wrongRequests) ||
		far(float64(o.mostAtCA), float64(foretold.mostAtCA), wrongRequests) ||
		far(float64(o.refused), float64(foretold.refused), float64(processes)/4)
}

func far(measured, foretold, atLeast float64) bool {
	return math.Abs(measured-foretold) > max(wrongShare*foretold, atLeast)
}

// A run in which a process waits for a processor longer than mostDelay measures the other work of this machine. The
// next one counts instead.
const (
	mostDelay = time.Second
	mostRuns  = 5
)

func (s realStorm) undisturbed(bin string, settings storm.Settings) outcome {
	for range mostRuns {
		end := delays()
		measured := s.run(bin, settings)
		delay := end()
		if delay < mostDelay {
			return measured
		}
		fmt.Printf("(not counted, as a process had to wait %.1f s for a processor: %s)\n", delay.Seconds(), measured)
	}
	panic("this machine has other work to do")
}

// delays watches how late this process is where it wants to be woken up. end returns the longest time.
func delays() (end func() time.Duration) {
	const often = 20 * time.Millisecond
	stop, longest := make(chan struct{}), make(chan time.Duration)
	go func() {
		var most time.Duration
		for last := time.Now(); ; last = time.Now() {
			select {
			case <-stop:
				longest <- most
				return
			case <-time.After(often):
				most = max(most, time.Since(last)-often)
			}
		}
	}()
	return func() time.Duration {
		close(stop)
		return <-longest
	}
}

// run starts the processes, each with an identity of its own, and waits for them. What one that fails says ends the
// program.
func (s realStorm) run(bin string, settings storm.Settings) outcome {
	dir := fixture.Must(os.MkdirTemp("", "certfetcher-storm-"))
	defer os.RemoveAll(dir)
	devca, entry, err := fixture.StartDevCA(bin, dir)
	fixture.Must(0, err)
	defer devca.Stop()
	ca := newSlowCA(fmt.Sprint(entry["url"]), settings)
	defer ca.Close()
	entry["url"] = ca.URL + "/pkix/"
	stack := fixture.Must(fixture.StartCertService(bin, dir, entry,
		"MAX_IN_FLIGHT="+strconv.Itoa(settings.MaxInFlight), "MAX_QUEUED="+strconv.Itoa(settings.MaxQueued),
		"MAX_CONNECTIONS="+strconv.Itoa(3*settings.Unverified)))
	defer stack.CertService.Stop()

	commands := make([]*exec.Cmd, s.processes)
	for i := range commands {
		pod := filepath.Join(dir, fmt.Sprint("pod", i))
		fixture.Must(0, stack.Transport.WriteIdentity(pod, fmt.Sprintf("pod%d.example.org", i)))
		commands[i] = exec.Command(filepath.Join(bin, "certfetcher"))
		commands[i].Env = fixture.Environment(stack.URL, pod, filepath.Join(pod, "volume"), "OUTPUT_TYPE=PEM",
			"REQUEST_TIMEOUT="+s.timeout.String(), "LOG_LEVEL=error")
	}
	done := make([]time.Duration, s.processes)
	failures := make([]string, s.processes)
	var all sync.WaitGroup
	begin := time.Now()
	ca.begin = begin
	for i, command := range commands {
		all.Go(func() {
			time.Sleep(time.Duration(rand.Float64() * float64(s.within)))
			if log, err := command.CombinedOutput(); err != nil {
				failures[i] = fmt.Sprintf("process %d: %v\n%s", i, err, log)
			}
			done[i] = time.Since(begin)
		})
	}
	all.Wait()
	if text := strings.Join(failures, ""); text != "" {
		panic(text)
	}
	slices.Sort(done)
	return outcome{done[len(done)-1], done[len(done)/2], slices.Max(ca.arrived), ca.most, refused(stack),
		int(ca.issued.Load()) - s.processes}
}

var overload = regexp.MustCompile(`(?m)^certservice_overloads_total\{.*\} (\d+)$`)

// refused is how many requests certservice answered with status 503.
func refused(stack *fixture.Stack) (sum int) {
	response := fixture.Must(http.Get("http://" + stack.Operations + "/metrics"))
	defer response.Body.Close()
	for _, match := range overload.FindAllSubmatch(fixture.Must(io.ReadAll(response.Body)), -1) {
		sum += fixture.Must(strconv.Atoi(string(match[1])))
	}
	return sum
}

// slowCA lets devca issue as the simulation's CA does: so many requests are worked on at the same time, each for half
// to one and a half of the mean, and the others wait, whether or not somebody still waits for their answer.
type slowCA struct {
	*httptest.Server
	target  string
	mean    time.Duration
	workers chan struct{}
	issued  atomic.Int64
	begin   time.Time

	mu        sync.Mutex
	arrived   []int // in each second
	now, most int
}

func newSlowCA(target string, settings storm.Settings) *slowCA {
	ca := &slowCA{target: target, workers: make(chan struct{}, settings.Workers), arrived: []int{0},
		mean: time.Duration(float64(settings.Workers) / settings.PerSecond * float64(time.Second))}
	ca.Server = httptest.NewServer(ca)
	return ca
}

// ServeHTTP passes a CMP message on.
func (ca *slowCA) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	message := fixture.Must(io.ReadAll(r.Body))
	defer ca.count()()
	ca.workers <- struct{}{}
	ready := time.Now().Add(time.Duration((0.5 + rand.Float64()) * float64(ca.mean)))
	response, err := http.Post(ca.target, r.Header.Get("Content-Type"), bytes.NewReader(message))
	time.Sleep(time.Until(ready))
	<-ca.workers
	if err != nil {
		panic(err)
	}
	defer response.Body.Close()
	ca.issued.Add(1)
	w.Header().Set("Content-Type", response.Header.Get("Content-Type"))
	w.WriteHeader(response.StatusCode)
	_, _ = io.Copy(w, response.Body) // the client may have gone
}

func (ca *slowCA) count() (leave func()) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	for second := int(time.Since(ca.begin).Seconds()); len(ca.arrived) <= second; {
		ca.arrived = append(ca.arrived, 0)
	}
	ca.arrived[len(ca.arrived)-1]++
	ca.now++
	ca.most = max(ca.most, ca.now)
	return func() {
		ca.mu.Lock()
		defer ca.mu.Unlock()
		ca.now--
	}
}
