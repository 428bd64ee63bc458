package notify

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseCommand_splits_as_a_shell_does_and_no_more(t *testing.T) {
	for _, row := range []struct {
		name, text string
		want       []string
	}{
		{"one word", `nginx`, []string{"nginx"}},
		{"spaces, tabs and line breaks separate", "  nginx \t-s\r\n reload ", []string{"nginx", "-s", "reload"}},
		{"single quotes keep everything", `echo 'a  "b" \ $HOME'`, []string{"echo", `a  "b" \ $HOME`}},
		{"double quotes keep blanks and single quotes", `echo "it's  here"`, []string{"echo", "it's  here"}},
		{"a backslash in double quotes escapes quote and backslash", `echo "a\"b\\c"`, []string{"echo", `a"b\c`}},
		{"any other backslash in double quotes stays", `echo "C:\new"`, []string{"echo", `C:\new`}},
		{"a backslash outside quotes takes any meaning away", `echo a\ b \' \\ \n`, []string{"echo", "a b", "'", `\`, "n"}},
		{"quoted parts join", `a'b'"c"d\e`, []string{"abcde"}},
		{"empty quotes are a word", `echo '' ""`, []string{"echo", "", ""}},
		{"nothing of a shell's other syntax means anything", `sh -c $HOME|*>x;# &`, []string{"sh", "-c", "$HOME|*>x;#", "&"}},
		{"text beyond ASCII", `écho "grüß dich"`, []string{"écho", "grüß dich"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			words, err := ParseCommand(row.text)
			require.NoError(t, err)
			assert.Equal(t, row.want, words)
		})
	}
}

func TestParseCommand_refuses_what_has_no_meaning(t *testing.T) {
	for _, row := range []struct{ name, text, want string }{
		{"nothing", "", "there is no program to run"},
		{"blanks only", " \t\n", "there is no program to run"},
		{"an empty program", `"" -s`, "there is no program to run"},
		{"an open single quote", `echo 'a b`, "the quote ' at byte 6 is not closed"},
		{"an open double quote", `echo "a' b`, `the quote " at byte 6 is not closed`},
		{"a double quote closed by an escaped one only", `echo "a\"`, `the quote " at byte 6 is not closed`},
		{"a backslash at the end", `echo \`, "the backslash at byte 6 has nothing after it"},
		{"NUL", "echo a\x00b", "byte 7 is NUL, which no argument can hold"},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := ParseCommand(row.text)
			require.EqualError(t, err, row.want)
		})
	}
}

// FuzzParseCommand checks that the words, quoted again, give the same words.
func FuzzParseCommand(f *testing.F) {
	for _, seed := range []string{``, `nginx -s reload`, `a 'b c' "d\"e\\" f\ g`, `'`, `"\`, `\`, "a\x00b", "a\nb''", `""`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		words, err := ParseCommand(text)
		if err != nil {
			require.Nil(t, words)
			return
		}
		single, double := make([]string, len(words)), make([]string, len(words))
		for i, word := range words {
			single[i] = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
			double[i] = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(word) + `"`
		}
		for _, quoted := range [][]string{single, double} {
			again, err := ParseCommand(strings.Join(quoted, " "))
			require.NoError(t, err)
			require.Equal(t, words, again)
		}
	})
}
