package volume

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// A named pipe, or a link, in the place of any file that a neighbour may write to, holds no one up and leads no one
// astray.
func TestNamedPipes_inThePlaceOfOtherFiles_holdNobodyUp(t *testing.T) {
	t.Parallel()
	s := start(t)
	for _, row := range chaos.Rows(t, "pipes.txt", 3, nil) {
		words, text, code := row[0], row[1], row[2]
		t.Run(words, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			victim := chaos.Write(t, dir+"/victim", "as it was")
			require.NoError(t, os.Symlink(victim, dir+"/link"))
			require.NoError(t, syscall.Mkfifo(dir+"/pipe", 0o666))
			paths := strings.NewReplacer("=PIPE", "="+dir+"/pipe", "=LINK", "="+dir+"/link")
			r := on(t, s, "symlink").Start(strings.Fields(paths.Replace(words))...)
			found := r.Await(text)
			if strings.HasPrefix(words, "MODE=sidecar") {
				r.Signal(t, syscall.SIGTERM)
			}
			assert.Equal(t, code, fmt.Sprint(r.Wait(chaos.Deadline)), r.Printed())
			assert.True(t, found, r.Printed())
			data := fixture.Must(os.ReadFile(victim))
			assert.Equal(t, "as it was", string(data))
		})
	}
}

// Whoever may make names on a volume can make many.
func TestManyNames_onAVolume_takeLittleTimeAndMemory(t *testing.T) {
	t.Parallel()
	s := start(t)
	template := ofEachLayout(t, s)
	many := chaos.Amount(2000, 20000, 100000)
	fill := func(format, command string) string {
		return fmt.Sprintf("seq -f '%s' %d | xargs -n 5000 %s", format, many, command)
	}
	links := fill("..data/x%.0f", "ln -s -t .")
	// Scripts of the shell, as the peak of this process's memory would count as that of the programs that it starts.
	for name, script := range map[string]string{
		"nothing":                ":",
		"links in ..stage":       "mkdir -p ..stage && cd ..stage && " + links,
		"links in ..commit":      "mkdir -p ..commit && cd ..commit && " + links,
		"links on ..lock":        "rm -f ..lock && mkdir ..lock && cd ..lock && " + links,
		"links beside files":     links,
		"files beside files":     fill("x%.0f", "touch"),
		"generations":            fill("..2020_01_01_00_00_00.%.0f", "mkdir"),
		"a deep tree in ..stage": "mkdir -p ..stage/" + strings.Repeat("d/", 1800),
	} {
		for _, layout := range chaos.Layouts {
			t.Run(name+" "+layout, func(t *testing.T) {
				v := on(t, s, layout)
				// Go's takes long for a deep tree.
				t.Cleanup(func() { chaos.Shell(t, "", `rm -rf "$0"`, v.Path) })
				chaos.Copy(t, template[layout].Path, v.Path)
				chaos.Shell(t, v.Path, script)
				r := v.Start(chaos.Force)
				assert.Zero(t, r.Wait(chaos.Deadline), r.Printed())
				assert.Less(t, r.Peak>>10, 100, "MiB")
				v.Publish("probe")
				chaos.Record(t, name+layout, many, name, layout, r.Took.Seconds(), r.Peak>>10)
			})
		}
	}
}
