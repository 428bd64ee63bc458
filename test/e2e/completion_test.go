package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// shells are how each shell is asked what may follow a line; it prints a word on a line, fish with what it means.
var shells = map[string]string{
	"bash": `source "$1"; words=$2; COMP_WORDS=($words); [[ $words == *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); compopt() { :; }; _${COMP_WORDS[0]}; printf '%s\n' "${COMPREPLY[@]}"`,
	"fish": `source $argv[1]; complete --do-complete $argv[2] | string replace --regex '\t.*' ''; true`,
	// A terminal of its own, in which the line is typed and Tab is pressed.
	"zsh": `zmodload zsh/zpty; zpty shell zsh -f -i
zpty -w shell "PROMPT=; unsetopt zle_bracketed_paste; autoload -Uz compinit; compinit -D -u; source ${(q)1}"
zpty -w shell 'zstyle ":completion:*" list-prompt ""; zstyle ":completion:*" menu no; LISTMAX=1000; print BE""GIN'
zpty -r -m shell line '*BEGIN*'; zpty -n -w shell "$2"$'\t'; sleep 1
while zpty -r -t shell line; do print -r -- "$line"; done; zpty -d shell`,
}

// What shells complete, by a line that ends where Tab is pressed.
func TestCompletion(t *testing.T) {
	for shell, script := range shells {
		t.Run(shell, func(t *testing.T) {
			t.Parallel()
			path := fixture.RequirePrograms(t, shell)[0]
			for _, row := range []struct {
				line       string
				want, lack []string
			}{
				{"certfetcher ", []string{"run", "check", "doctor", "inspect", "completion"}, []string{"serve"}},
				{"certfetcher ins", []string{"inspect"}, []string{"doctor"}},
				{"certfetcher inspect --", []string{"--output", "--password-file"}, []string{"--uid"}},
				{"certfetcher inspect --output ", []string{"text", "json"}, []string{"doctor"}},
				{"certfetcher completion ", []string{"bash", "zsh", "fish"}, []string{"doctor"}},
				{"certservice policy ", []string{"check", "schema"}, []string{"serve"}},
				{"certservice policy check --operation ", []string{"enroll", "update"}, []string{"serve"}},
				{"devca ", []string{"serve", "version"}, []string{"doctor"}},
			} {
				program, _, _ := strings.Cut(row.line, " ")
				file := filepath.Join(t.TempDir(), "_"+program)
				completion, err := exec.Command(filepath.Join(binDir, program), "completion", shell).Output()
				require.NoError(t, err)
				require.NoError(t, os.WriteFile(file, completion, 0o600))
				arguments := []string{"-c", script, shell, file, row.line}
				if shell == "fish" {
					arguments = []string{"--no-config", "-c", script, file, row.line}
				}
				ask := exec.Command(path, arguments...)
				ask.Dir = t.TempDir()
				ask.Env = []string{"PATH=" + binDir + ":" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "TERM=dumb"}
				out, err := ask.CombinedOutput()
				require.NoError(t, err, "%s: %s", row.line, out)
				for _, word := range row.want {
					assert.Contains(t, string(out), word, row.line)
				}
				for _, word := range row.lack {
					assert.NotContains(t, string(out), word, row.line)
				}
			}
		})
	}
}
