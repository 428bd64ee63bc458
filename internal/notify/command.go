package notify

import (
	"errors"
	"fmt"
	"strings"
)

// ParseCommand splits a command line into words, as a shell does before it does anything else. No
// shell is involved: variables, wildcards, pipes and redirections have no meaning.
//
//   - Words are separated by spaces, tabs and line breaks.
//   - Within single quotes everything stands for itself.
//   - Within double quotes a backslash takes the meaning from a following " or \ and otherwise stands
//     for itself; everything else stands for itself.
//   - Outside quotes a backslash makes any following character stand for itself.
//   - Quoted parts join with what touches them; "" alone is an empty word.
//
// An error tells where in the text, counted in bytes from 1, a quote or backslash is that lacks its
// other half. It does not show the text, which may hold a secret.
func ParseCommand(text string) ([]string, error) {
	if at := strings.IndexByte(text, 0); at >= 0 {
		return nil, fmt.Errorf("byte %d is NUL, which no argument can hold", at+1)
	}
	var words []string
	var word strings.Builder
	inWord := false
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch c {
		case ' ', '\t', '\n', '\r':
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
			continue
		case '\\':
			if i++; i == len(text) {
				return nil, fmt.Errorf("the backslash at byte %d has nothing after it", i)
			}
			word.WriteByte(text[i])
		case '\'', '"':
			end, err := quoted(&word, text, i)
			if err != nil {
				return nil, err
			}
			i = end
		default:
			word.WriteByte(c)
		}
		inWord = true
	}
	if inWord {
		words = append(words, word.String())
	}
	if len(words) == 0 || words[0] == "" {
		return nil, errors.New("there is no program to run")
	}
	return words, nil
}

// quoted appends what the quote at start encloses to word, and returns where it is closed.
func quoted(word *strings.Builder, text string, start int) (int, error) {
	quote := text[start]
	for i := start + 1; i < len(text); i++ {
		switch {
		case text[i] == quote:
			return i, nil
		case text[i] == '\\' && quote == '"' && i+1 < len(text) && (text[i+1] == '"' || text[i+1] == '\\'):
			i++
		}
		word.WriteByte(text[i])
	}
	return 0, fmt.Errorf("the quote %c at byte %d is not closed", quote, start+1)
}
