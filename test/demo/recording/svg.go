package main

import (
	"fmt"
	"html"
	"regexp"
	"strings"
	"unicode/utf8"
)

// step is a command that was typed, and what a terminal showed of it.
type step struct{ command, shown string }

// What a screen looks like: its columns, and the size of a character and of a line in pixels.
const (
	columns    = 118
	charWidth  = 7.8
	lineHeight = 18
	margin     = 20
	titleBar   = 30
)

var (
	escape = regexp.MustCompile("\x1b\\[([0-9;]*)m")
	// colours are what the programs use, as SVG has them.
	colours = map[string]string{"31": "#ff7b72", "32": "#7ee787", "33": "#e3b341", "36": "#79c0ff", "90": "#8b949e"}
)

// span is text of one colour, or weight.
type span struct {
	text, colour string
	bold         bool
}

// spans takes a line with the terminal's codes apart.
func spans(line string) (list []span) {
	now := span{}
	for {
		at := escape.FindStringSubmatchIndex(line)
		if at == nil {
			now.text = line
			return append(list, now)
		}
		if now.text = line[:at[0]]; now.text != "" {
			list = append(list, now)
		}
		for code := range strings.SplitSeq(line[at[2]:at[3]], ";") {
			switch code {
			case "", "0":
				now = span{}
			case "1":
				now.bold = true
			default:
				now.colour = colours[code]
			}
		}
		line = line[at[1]:]
	}
}

// wrapped breaks a line that is longer than the screen is wide, as a terminal does.
func wrapped(list []span) (lines [][]span) {
	var line []span
	room := columns
	for _, s := range list {
		for utf8.RuneCountInString(s.text) > room {
			runes := []rune(s.text)
			line = append(line, span{string(runes[:room]), s.colour, s.bold})
			lines = append(lines, line)
			line, room, s.text = nil, columns, string(runes[room:])
		}
		line = append(line, s)
		room -= utf8.RuneCountInString(s.text)
	}
	return append(lines, line)
}

// draw shows the steps as they stand on a terminal, one after the other. It is one picture with no script, so that
// every viewer shows it in the same way.
func draw(title string, steps []step) string {
	var lines [][]span
	for i, s := range steps {
		if i > 0 {
			lines = append(lines, nil)
		}
		for j, line := range strings.Split(s.command, "\n") {
			prompt := "$ "
			if j > 0 {
				prompt = "> "
			}
			lines = append(lines, []span{{prompt, colours["32"], true}, {line, "#f0f6fc", true}})
		}
		for line := range strings.SplitSeq(strings.TrimRight(s.shown, "\n"), "\n") {
			lines = append(lines, wrapped(spans(line))...)
		}
	}
	width, height := columns*charWidth+2*margin, len(lines)*lineHeight+2*margin+titleBar
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%d" viewBox="0 0 %.0f %d" role="img">
<title>%s</title>
<rect width="100%%" height="100%%" rx="8" fill="#0d1117"/>
`, width, height, width, height, html.EscapeString(title))
	for i, colour := range []string{"#ff5f56", "#ffbd2e", "#27c93f"} {
		fmt.Fprintf(&b, "<circle cx=\"%d\" cy=\"20\" r=\"6\" fill=\"%s\"/>\n", margin+6+i*20, colour)
	}
	b.WriteString(`<g font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace" ` +
		`font-size="13" fill="#c9d1d9">` + "\n")
	for i, line := range lines {
		column := 0
		for _, s := range line {
			style := ""
			if s.colour != "" {
				style += ` fill="` + s.colour + `"`
			}
			if s.bold {
				style += ` font-weight="bold"`
			}
			// textLength keeps the columns whatever font there is, and spaces that do not break are not joined.
			length := utf8.RuneCountInString(s.text)
			if strings.TrimSpace(s.text) != "" {
				fmt.Fprintf(&b, "<text x=\"%.1f\" y=\"%d\" textLength=\"%.1f\"%s>%s</text>\n",
					margin+float64(column)*charWidth, titleBar+margin+i*lineHeight+4, float64(length)*charWidth, style,
					html.EscapeString(strings.ReplaceAll(s.text, " ", "\u00a0")))
			}
			column += length
		}
	}
	b.WriteString("</g>\n</svg>\n")
	return b.String()
}
