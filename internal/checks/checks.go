// Package checks is what both doctors are made of: checks, the report of them for people and for
// programs, and the way to a server as package client finds it.
package checks

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/internal/program"
)

// Status is how a check came out.
type Status string

// The values of Status. The program is the one that the doctor is about.
const (
	OK      Status = "ok"
	Warning Status = "warning" // the program works, but something should be repaired
	Failed  Status = "failed"  // the program fails, or what it does is in vain
	Skipped Status = "skipped" // not checked; Found says why
)

// Check is one thing that was looked at. Texts are one line each and hold no secret.
type Check struct {
	ID            string `json:"id"`           // of the section in docs/checks.md
	Name          string `json:"name"`         // the same with spaces
	CA            string `json:"ca,omitempty"` // that it is about, of several
	Status        Status `json:"status"`
	Expected      string `json:"expected"`
	Found         string `json:"found"`
	Advice        string `json:"advice,omitempty"` // what to do, of a warning or failure
	Documentation string `json:"documentation"`    // where the check is explained
	// ExitCode is the one with which the program would fail for the same reason; 0 when nothing failed.
	ExitCode int `json:"exitCode,omitempty"`
}

// List collects checks.
type List struct {
	Expected map[string]string // of each name, a sentence without its end
	CA       string            // that the next checks are about; "": none
	Checks   []Check
}

// OK adds a check that came out well.
func (l *List) OK(name, found string, args ...any) {
	l.add(Check{Name: name, Status: OK, Found: fmt.Sprintf(found, args...)})
}

// Warn adds a warning.
//
//go:noinline
func (l *List) Warn(name, found, advice string) {
	l.add(Check{Name: name, Status: Warning, Found: found, Advice: advice})
}

// Fail adds a failure with the exit code that the program would have for the same reason.
//
//go:noinline
func (l *List) Fail(exitCode int, name, found, advice string) {
	l.add(Check{Name: name, Status: Failed, Found: found, Advice: advice, ExitCode: exitCode})
}

// Skip adds a check that was not made.
func (l *List) Skip(name, because string) { l.add(Check{Name: name, Status: Skipped, Found: because}) }

// Add adds a check that was made elsewhere, under a name of its own.
func (l *List) Add(name string, c Check) {
	c.Name = name
	l.add(c)
}

// SkipRest skips those of the names that are not there yet.
func (l *List) SkipRest(names []string, because string) {
	for _, name := range names {
		if !slices.ContainsFunc(l.Checks, func(c Check) bool { return c.Name == name && c.CA == l.CA }) {
			l.Skip(name, because)
		}
	}
}

// Failed tells whether a check about the same CA failed.
func (l *List) Failed(name string) bool {
	return slices.ContainsFunc(l.Checks, func(c Check) bool {
		return c.Name == name && c.CA == l.CA && c.Status == Failed
	})
}

// maxText bounds, in characters, what of a text is shown: some of it comes from others.
const maxText = 1500

// add takes a check in. Much in its texts comes from certificates and servers: none of it may
// reach a terminal as a control sequence.
func (l *List) add(c Check) {
	c.ID, c.CA, c.Expected = ID(c.Name), l.CA, l.Expected[c.Name]
	c.Documentation = program.Documentation + "checks.md#" + c.ID
	c.Found, c.Advice = pki.OneLine(c.Found, maxText), pki.OneLine(c.Advice, maxText)
	l.Checks = append(l.Checks, c)
}

// ID is the identifier that belongs to a name.
func ID(name string) string { return strings.ReplaceAll(name, " ", "-") }

// Report is the list of checks in the order in which they are shown. A name can come more than
// once: each variable with a fault has a check of its own, and so has each CA.
type Report struct {
	Checks []Check
}

// ExitCode is 0 when no check failed, warnings or not; else the exit code of the first that failed.
func (r Report) ExitCode() int {
	for _, c := range r.Checks {
		if c.Status == Failed {
			return c.ExitCode
		}
	}
	return 0
}

// Status is the worst of the checks; skipped ones do not count.
func (r Report) Status() Status {
	worst := OK
	for _, c := range r.Checks {
		switch c.Status {
		case Failed:
			return Failed
		case Warning:
			worst = Warning
		}
	}
	return worst
}

// WriteJSON writes {"status", "exitCode", "checks": […]}, the checks as Check has them.
func (r Report) WriteJSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(struct {
		Status   Status  `json:"status"`
		ExitCode int     `json:"exitCode"`
		Checks   []Check `json:"checks"`
	}{r.Status(), r.ExitCode(), append([]Check{}, r.Checks...)})
}

// Write writes the report in the format "json", or else as text in the style that fits w.
func (r Report) Write(w io.Writer, format string) error {
	if format == "json" {
		return r.WriteJSON(w)
	}
	return r.WriteText(w, StyleOf(w))
}
