package program

import (
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
)

// Closest finds the known name that is meant by name, which is not one of them. Case and
// separators do not count. It answers no sooner than the two look alike: a short name may differ
// by less than a long one.
func Closest(name string, known []string) (string, bool) {
	upper, written := strings.ToUpper(name), bare(name)
	best, least := "", len(written)
	for _, candidate := range known {
		isAbbreviation := isAbbreviation(upper, strings.ToUpper(candidate))
		// Every start looks at every variable: names whose
		// lengths alone are too far apart are not compared.
		if apart := len(written) - letters(candidate); !isAbbreviation && max(apart, -apart) > mostTolerated {
			continue
		}
		meant := bare(candidate)
		d := distance(written, meant)
		if d > 0 && isAbbreviation {
			d = 1
		}
		if d <= mostEdits(written, meant) && d < least {
			best, least = candidate, d
		}
	}
	return best, best != ""
}

// mostEdits is by how many edits two names may differ. Of short ones, many words are near: only a
// letter that is missing or swapped with its neighbour counts.
func mostEdits(written, meant string) int {
	switch n := min(len(written), len(meant)); {
	case n < 3:
		return 0
	case n < 6:
		if len(written) < len(meant) || len(written) == len(meant) && sameLetters(written, meant) {
			return 1
		}
		return 0
	case n < 10:
		return 1
	case n < 20:
		return 2
	}
	return mostTolerated
}

const mostTolerated = 3

func sameLetters(a, b string) bool {
	var surplus [256]int
	for _, letter := range []byte(a) {
		surplus[letter]++
	}
	for _, letter := range []byte(b) {
		surplus[letter]--
	}
	return surplus == [256]int{}
}

// isAbbreviation tells two names of which one has the
// other's last word cut off: KEYSTORE_PASS, HEALTH_ADDRESS.
func isAbbreviation(a, b string) bool {
	if len(a) > len(b) {
		a, b = b, a
	}
	rest, ok := strings.CutPrefix(b, a)
	word := strings.LastIndexByte(a, '_') + 1
	return ok && word > 0 && len(a)-word >= 3 && !strings.Contains(rest, "_")
}

var separators = strings.NewReplacer("_", "", "-", "", ".", "")

// mostLetters is more than any known name has.
const mostLetters = 64

// bare is a name without what is easily got wrong, and no longer than any that is known.
func bare(name string) string {
	name = separators.Replace(strings.ToUpper(name))
	return name[:min(len(name), mostLetters)]
}

// letters is the length of a bare name.
func letters(name string) int {
	n := len(name) - strings.Count(name, "_") - strings.Count(name, "-") - strings.Count(name, ".")
	return min(n, mostLetters)
}

// distance counts the letters that differ between two names: inserted, left out, replaced, or two
// neighbours swapped (the restricted Damerau-Levenshtein distance).
func distance(a, b string) int {
	var before, row, next [mostLetters + 1]int
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next[0] = i
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			next[j] = min(row[j]+1, next[j-1]+1, row[j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}

// VariableNames lists the names of variables, with the twins of secrets.
func VariableNames(variables []Variable) []string {
	var names []string
	for _, v := range variables {
		names = append(names, v.Name)
		if v.Secret {
			names = append(names, v.Name+"_FILE")
		}
	}
	return names
}

// Misspelling is a variable that a program does not know,
// and one that it knows and that looks like it.
type Misspelling struct{ Name, Meant string }

// Problem is the rest of a sentence that begins with the variable's name.
func (m Misspelling) Problem() string {
	return fmt.Sprintf("is not known and has no effect: did you mean %s?", m.Meant)
}

// LogMisspelt warns of the variables that Misspelt finds.
func LogMisspelt(log *slog.Logger, known []string) {
	for _, m := range FindMisspelt(known) {
		log.Warn(NeedsAttention, "variable", m.Name, "error", m.Problem())
	}
}

// NeedsAttention is the message of a warning about a variable.
const NeedsAttention = "the environment needs attention"

// isInjected tells the variables that Kubernetes sets for each Service, whatever its name.
func isInjected(name string) bool {
	for _, suffix := range []string{"_SERVICE_HOST", "_SERVICE_PORT", "_PORT"} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	_, port, _ := strings.Cut(name, "_PORT_")
	return strings.Contains(name, "_SERVICE_PORT_") || port != "" && port[0] >= '0' && port[0] <= '9'
}

// foreign are variables of the Go runtime and libraries, shells and container engines. A program
// may look at them by other means than its tagged type.
var foreign = []string{
	"PATH", "HOME", "HOSTNAME", "USER", "SHELL", "SHLVL", "PWD", "OLDPWD", "TERM", "LANG", "TZ", "TMPDIR", "_",
	"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
	"GODEBUG", "GOGC", "GOMEMLIMIT", "GOMAXPROCS", "GOTRACEBACK", "SSL_CERT_FILE", "SSL_CERT_DIR",
}

// FindMisspelt finds, sorted by name, the variables of the environment that are unknown but look
// like known ones: a misspelt variable would otherwise go unnoticed. Empty ones count as unset.
func FindMisspelt(known []string) []Misspelling {
	var found []Misspelling
	for _, entry := range os.Environ() {
		name, value, _ := strings.Cut(entry, "=")
		if value == "" || slices.Contains(known, name) || slices.Contains(foreign, name) || isInjected(name) {
			continue
		}
		if of, isTwin := strings.CutSuffix(name, "_FILE"); isTwin && slices.Contains(known, of) {
			found = append(found, Misspelling{Name: name, Meant: of}) // which is not a secret
		} else if meant, ok := Closest(name, known); ok {
			found = append(found, Misspelling{Name: name, Meant: meant})
		}
	}
	sort.Slice(found, func(i, j int) bool { return found[i].Name < found[j].Name })
	return found
}

// SuggestWriting words the hint that a value should be written otherwise; empty for no hint.
func SuggestWriting(text string) string {
	if text == "" {
		return ""
	}
	return "write " + text
}

// choiceHint says which of the choices a value was probably meant to be, or "".
func choiceHint(value string, choices []string) string {
	if len(choices) == 2 && choices[0] == "true" {
		switch strings.TrimSpace(value) {
		case "yes", "y", "on", "1", "enabled", "t":
			return SuggestWriting("true")
		case "no", "n", "off", "0", "disabled", "f":
			return SuggestWriting("false")
		}
	}
	if trimmed := strings.TrimSpace(value); trimmed != value {
		return "it begins or ends with white space"
	}
	for _, choice := range choices {
		if len(value) >= 3 && (strings.HasPrefix(choice, value) || strings.HasPrefix(value, choice)) {
			return SuggestWriting(choice)
		}
	}
	choice, _ := Closest(value, choices)
	return SuggestWriting(choice)
}

// units are those that people write and Go's durations do not have, or have by another name.
var units = map[string]time.Duration{
	"d": 24 * time.Hour, "day": 24 * time.Hour, "days": 24 * time.Hour,
	"w": 7 * 24 * time.Hour, "week": 7 * 24 * time.Hour, "weeks": 7 * 24 * time.Hour,
	"h": time.Hour, "hr": time.Hour, "hrs": time.Hour, "hour": time.Hour, "hours": time.Hour,
	"m": time.Minute, "min": time.Minute, "mins": time.Minute, "minute": time.Minute, "minutes": time.Minute,
	"s": time.Second, "sec": time.Second, "secs": time.Second, "second": time.Second, "seconds": time.Second,
	"ms": time.Millisecond, "msec": time.Millisecond, "millis": time.Millisecond,
}

// DurationHint says how a duration is written that people write otherwise, or "".
func DurationHint(text string) string {
	text = strings.ToLower(strings.TrimSpace(text))
	number := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyz ")
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || strings.Trim(number, "0123456789.") != "" || n <= 0 || n > 1e6 {
		return ""
	}
	unit := strings.TrimSpace(text[len(number):])
	if unit == "" {
		return "a unit is missing: write " + number + "s, " + number + "m or " + number + "h"
	}
	if size, ok := units[unit]; ok {
		return SuggestWriting(short(time.Duration(n * float64(size))))
	}
	return ""
}

// short is a duration without the zero units at its end.
func short(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
