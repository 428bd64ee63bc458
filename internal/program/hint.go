package program

import (
	"strconv"
	"strings"
	"time"
)

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
