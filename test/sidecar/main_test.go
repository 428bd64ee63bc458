// Package sidecar runs the built certfetcher with MODE=sidecar as a pod would, against a real CertService
// on loopback whose certificates live for seconds, and looks at what a user sees: files, log, probes,
// metrics, and what applications serve.
package sidecar

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certfetcher/certfetcher/test/chaos"
)

// roles are what the test binary is when its first argument says so.
var roles = map[string]func(argument string) int{}

func TestMain(m *testing.M) { chaos.Main(m, roles) }

// sidecar is a certfetcher that a script has started.
type sidecar struct {
	*exec.Cmd
	address string        // of the probes; empty: as logged
	ended   chan struct{} // closed when it has ended

	mutex sync.Mutex
	said  []string
	log   []line // the same
}

// begin starts the program and reads its log.
func (p *sidecar) begin() error {
	stderr, err := p.StderrPipe()
	if err == nil {
		err = p.Start()
	}
	if err != nil {
		return err
	}
	go func() {
		for scanner := bufio.NewScanner(stderr); scanner.Scan(); {
			l := line{}
			if json.Unmarshal(scanner.Bytes(), &l) != nil {
				l["msg"] = scanner.Text()
			}
			p.mutex.Lock()
			p.said, p.log = append(p.said, scanner.Text()), append(p.log, l)
			p.mutex.Unlock()
		}
		_ = p.Wait()
		close(p.ended)
	}()
	return nil
}

func (p *sidecar) text() string {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return strings.Join(p.said, "\n")
}

// lines returns all that have the message.
func (p *sidecar) lines(message string) (found []line) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	for _, l := range p.log {
		if l["msg"] == message {
			found = append(found, l)
		}
	}
	return found
}

// line is one line of a program's log.
type line map[string]any

// has says whether a check of an attribute holds: KEY=VALUE, KEY~REGEXP, or KEY<DURATION and KEY>DURATION, which the
// log has as KEY_ms.
func (l line) has(check string) bool {
	at := strings.IndexAny(check, "=~<>")
	key, want := check[:at], check[at+1:]
	bound, _ := time.ParseDuration(want)
	milliseconds, _ := l[key+"_ms"].(float64)
	switch check[at] {
	case '<':
		return milliseconds <= float64(bound.Milliseconds())
	case '>':
		return milliseconds >= float64(bound.Milliseconds())
	case '~':
		return regexp.MustCompile("(?s)" + want).MatchString(fmt.Sprint(l[key]))
	}
	return fmt.Sprint(l[key]) == want
}

// hasAll says whether all checks hold.
func (l line) hasAll(checks []string) bool {
	for _, check := range checks {
		if !l.has(check) {
			return false
		}
	}
	return true
}
