package checks

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/certfetcher/certfetcher/internal/program"
)

// Style is how a text is shown. Its zero value has neither colours nor symbols, and is for scripts.
type Style struct {
	Symbols bool // in place of the words for a status
	Colours bool
}

// StyleOf is the style for a writer. Colours are as for all that our programs write. Symbols are for
// terminals whose locale is UTF-8, and not for dumb ones.
func StyleOf(w io.Writer) Style {
	return Style{Colours: program.UsesColour(w), Symbols: program.IsTerminal(w) && showsSymbols(os.Getenv)}
}

func showsSymbols(getenv func(string) string) bool {
	locale := strings.ToUpper(cmp.Or(getenv("LC_ALL"), getenv("LC_CTYPE"), getenv("LANG")))
	return getenv("TERM") != "dumb" && (strings.HasSuffix(locale, "UTF-8") || strings.HasSuffix(locale, "UTF8"))
}

// looks are symbol and colour (SGR) of each status.
var looks = map[Status]struct{ symbol, colour string }{
	OK: {"✓", "32"}, Warning: {"⚠", "33"}, Failed: {"✗", "31"}, Skipped: {"–", "2"},
}

func (s Style) paint(colour, text string) string {
	if !s.Colours || text == "" {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// mark is the beginning of a check's first line, and its width.
func (s Style) mark(status Status) (text string, width int) {
	if s.Symbols {
		return s.paint(looks[status].colour, looks[status].symbol) + " ", 2
	}
	word := string(status)
	return s.paint(looks[status].colour, word) + strings.Repeat(" ", statusWidth-len(word)), statusWidth
}

// The columns of the text: two of fixed width, and a third up to textWidth.
const (
	statusWidth = 9
	nameWidth   = 20
	textWidth   = 100
)

// WriteText writes a line for each check, wrapped at 100 columns, those of one CA below a line with
// its name, and a summary at the end. A warning or failure also has what was expected, what to do
// after an arrow, and where it is explained.
func (r Report) WriteText(w io.Writer, style Style) error {
	var text strings.Builder
	counts, ca := map[Status]int{}, ""
	for _, c := range r.Checks {
		counts[c.Status]++
		if c.CA != ca {
			ca = c.CA
			fmt.Fprintf(&text, "\nCA %s\n", ca)
		}
		c.write(&text, style)
	}
	fmt.Fprintf(&text, "\nfailed: %d, warnings: %d, ok: %d, skipped: %d; exit code %d\n",
		counts[Failed], counts[Warning], counts[OK], counts[Skipped], r.ExitCode())
	_, err := io.WriteString(w, text.String())
	return err
}

func (c *Check) write(text *strings.Builder, style Style) {
	mark, width := style.mark(c.Status)
	width += nameWidth
	lines := wrap(c.Found, textWidth-width)
	if c.Status == Failed || c.Status == Warning {
		lines = append(lines, indent("want: ", c.Expected, width)...)
		lines = append(lines, indent("-> ", c.Advice, width)...)
		lines = append(lines, style.paint("2", "see "+c.Documentation))
	}
	name := c.Name
	for _, line := range lines {
		fmt.Fprintf(text, "%s%-*s%s\n", mark, nameWidth, name, line)
		mark, name = strings.Repeat(" ", width-nameWidth), ""
	}
}

// indent wraps a text behind a word, in the third column; an empty text has no lines.
func indent(word, text string, width int) []string {
	if text == "" {
		return nil
	}
	lines := wrap(text, textWidth-width-len(word))
	for i := range lines {
		lines[i] = word + lines[i]
		word = strings.Repeat(" ", len(word))
	}
	return lines
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
