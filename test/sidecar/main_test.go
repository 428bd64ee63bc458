// Package sidecar runs the built certfetcher with MODE=sidecar as a pod would, against a real CertService
// on loopback whose certificates live for seconds, and looks at what a user sees: files, log, probes,
// metrics, and what applications serve.
package sidecar

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/certfetcher/certfetcher/test/chaos"
)

// roles are what the test binary is when its first argument says so.
var roles = map[string]func(argument string) int{}

func TestMain(m *testing.M) { chaos.Main(m, roles) }

// lines returns those of a program's log that have the message.
func lines(p *chaos.Process, message string) (found []line) {
	for text := range strings.Lines(p.Printed()) {
		if !strings.Contains(text, message) {
			continue // most are not
		}
		l := line{}
		if json.Unmarshal([]byte(text), &l) != nil { // of the runtime, or not yet whole
			l["msg"] = strings.TrimSpace(text)
		}
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
