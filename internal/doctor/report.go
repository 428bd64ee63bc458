package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Status is how a check came out.
type Status string

const (
	OK      Status = "ok"
	Warning Status = "warning" // certfetcher works, but something should be mended
	Failed  Status = "failed"  // certfetcher fails, or what it does is in vain
	Skipped Status = "skipped" // not checked; Found says why
)

// Check is one thing that was looked at. Texts are one line each and hold no secret.
type Check struct {
	Name   string `json:"name"`
	Status Status `json:"status"`
	Found  string `json:"found"`
	Advice string `json:"advice,omitempty"` // what to do, of a warning or failure
	// ExitCode is the one with which certfetcher would fail for the same reason; 0 when nothing failed.
	ExitCode int `json:"exitCode,omitempty"`
}

// Report is the list of checks in the order in which they were made. A name can come more than once: each
// variable with a fault has a check of its own.
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

// The columns of the text: two of fixed width, and a third up to textWidth.
const (
	statusWidth = 9
	nameWidth   = 20
	textWidth   = 100
)

// WriteText writes a line for each check, wrapped at 100 columns, with what to do after an arrow, and a
// summary at the end.
func (r Report) WriteText(w io.Writer) error {
	var text strings.Builder
	counts := map[Status]int{}
	for _, c := range r.Checks {
		counts[c.Status]++
		lines := wrap(c.Found, textWidth-statusWidth-nameWidth)
		if c.Advice != "" {
			arrow := "-> "
			for _, line := range wrap(c.Advice, textWidth-statusWidth-nameWidth-len(arrow)) {
				lines = append(lines, arrow+line)
				arrow = "   "
			}
		}
		status, name := string(c.Status), c.Name
		for _, line := range lines {
			fmt.Fprintf(&text, "%-*s%-*s%s\n", statusWidth, status, nameWidth, name, line)
			status, name = "", ""
		}
	}
	fmt.Fprintf(&text, "\nfailed: %d, warnings: %d, ok: %d, skipped: %d; exit code %d\n",
		counts[Failed], counts[Warning], counts[OK], counts[Skipped], r.ExitCode())
	_, err := io.WriteString(w, text.String())
	return err
}

// wrap breaks a text at spaces; a longer word stands alone. There is at least one line.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width:
			lines = append(lines, line)
			line = word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}
