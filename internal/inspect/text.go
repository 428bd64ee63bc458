package inspect

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// WriteText prints the report for people: a table of files, then the certificate.
func (r *Report) WriteText(w io.Writer, now time.Time) error {
	var text strings.Builder
	fmt.Fprintf(&text, "%s (%s layout%s)\n\n", r.Dir, r.Layout, orNothing(", generation ", r.Generation))
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "FILE\tMODE\tBYTES\tCONTENT")
	for _, f := range r.Files {
		for i, line := range f.content() {
			if i == 0 {
				fmt.Fprintf(table, "%s\t%s\t%d\t%s\n", f.Name, f.Mode, f.Size, line)
			} else {
				fmt.Fprintf(table, "\t\t\t%s\n", line)
			}
		}
	}
	table.Flush()
	if c := r.Certificate; c != nil {
		c.write(&text, now)
	}
	if q := r.Requested; q != nil {
		fmt.Fprintf(&text, "Requested: %s\n", q.text())
	}
	if len(r.Trusted) > 0 {
		fmt.Fprintf(&text, "Trusts:   %s\n", strings.Join(r.Trusted, "\n          "))
	}
	_, err := io.WriteString(w, text.String())
	return err
}

func orNothing(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

// content words a file's entries, a line each.
func (f File) content() []string {
	if f.Problem != "" {
		return []string{"UNREADABLE: " + f.Problem}
	}
	if f.Format == "password" {
		return []string{"password of " + strings.TrimSuffix(f.Name, ".pass")}
	}
	var lines []string
	for _, e := range f.Entries {
		line := e.Kind
		if e.Alias != "" {
			line = e.Alias + ": " + line
		}
		switch {
		case e.Kind == "PrivateKeyEntry":
			line += fmt.Sprintf(", chain of %d", e.Chain)
		case e.Subject != "":
			line += ", " + e.Subject
		}
		lines = append(lines, line)
	}
	if len(lines) == 0 {
		return []string{"no entries"}
	}
	return lines
}

// text words a request on one line.
func (q *Requested) text() string {
	parts := append([]string{q.Subject + " of " + q.CA, q.KeyAlgorithm}, q.SANs...)
	return pki.OneLine(strings.Join(parts, ", "), maxRequested)
}

// maxRequested bounds, in characters, what is shown of a record: any process that may write to the volume may have
// written it.
const maxRequested = 4000

func (c *Certificate) write(w io.Writer, now time.Time) {
	fmt.Fprintf(w, "\nSubject:  %s\n", c.Subject)
	fmt.Fprintf(w, "SANs:     %s\n", strings.Join(c.SANs, ", "))
	fits := "fits the certificate"
	if !c.KeyFits {
		fits = "DOES NOT FIT the certificate"
	}
	fmt.Fprintf(w, "Key:      %s, %s\n", c.Key, fits)
	fmt.Fprintf(w, "Serial:   %s\n", c.Serial)
	fmt.Fprintf(w, "Chain:    %s\n", strings.Join(c.Chain, "\n          signed by "))
	fmt.Fprintf(w, "Valid:    %s to %s (%s)\n",
		c.NotBefore.Format(time.RFC3339), c.NotAfter.Format(time.RFC3339), left(now, c.NotAfter))
	if c.NextRenewal != nil {
		overdue := ""
		if c.NextRenewal.Before(now) {
			overdue = " (overdue)"
		}
		fmt.Fprintf(w, "Renewal:  %s, by a sidecar%s\n", c.NextRenewal.Format(time.RFC3339), overdue)
	}
}

// left words how much of a certificate's life is left.
func left(now, end time.Time) string {
	switch d := end.Sub(now); {
	case d <= 0:
		return "EXPIRED"
	case d < 48*time.Hour:
		return d.Round(time.Minute).String() + " left"
	}
	return fmt.Sprintf("%d days left", pki.Days(now, end))
}
