// Package golden compares texts with those of files, which `go test PACKAGE -update` rewrites. Read
// the difference that it makes.
package golden

import (
	"errors"
	"flag"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// File compares with the whole of testdata/name.
func File(t testing.TB, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, string(want), got)
}

// Texts are those of one file, each under a line "# title".
type Texts struct {
	mu        sync.Mutex
	want, got map[string]string
}

func parse(t testing.TB, path string) map[string]string {
	t.Helper()
	data, err := os.ReadFile(path)
	if !*update || !errors.Is(err, fs.ErrNotExist) {
		require.NoError(t, err)
	}
	texts := map[string]string{}
	for _, section := range strings.Split("\n"+string(data), "\n# ")[1:] {
		title, text, _ := strings.Cut(section, "\n")
		texts[title] = strings.TrimSuffix(text, "\n")
	}
	return texts
}

// Read returns the texts of testdata/name by their titles, for tests whose inputs they are. It
// updates nothing.
func Read(t testing.TB, name string) map[string]string {
	t.Helper()
	return parse(t, filepath.Join("testdata", name))
}

// Play compares each text of the files of a pattern with what play returns for it. A text begins
// with commands, lines that begin with ">", and what comes of them is below; or else its title says
// all that play needs.
func Play(t *testing.T, pattern string, play func(t *testing.T, title, commands string) string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", pattern))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		name := strings.TrimPrefix(file, "testdata/")
		want := Load(t, name)
		for title, text := range Read(t, name) {
			t.Run(title, func(t *testing.T) {
				commands := ""
				for line := range strings.Lines(text + "\n") {
					if strings.HasPrefix(line, ">") {
						commands += line
					}
				}
				got := strings.TrimSuffix(play(t, title, commands), "\n")
				if !strings.HasPrefix(got, ">") { // else it has what comes of each command below it
					got = commands + got
				}
				want.Equal(t, title, got)
			})
		}
	}
}

// Load reads testdata/name. When t and its subtests have ended, each of its texts must have been
// compared.
func Load(t testing.TB, name string) *Texts {
	t.Helper()
	path := filepath.Join("testdata", name)
	x := &Texts{want: parse(t, path), got: map[string]string{}}
	all := flag.Lookup("test.run").Value.String() == ""
	t.Cleanup(func() {
		if !*update {
			for title := range x.want {
				_, found := x.got[title]
				assert.True(t, found || !all || t.Failed(), "%s: no test has the text %q", path, title)
			}
			return
		}
		if t.Failed() {
			return // half of the texts may be missing
		}
		if !all {
			for title, text := range x.want {
				if _, found := x.got[title]; !found {
					x.got[title] = text
				}
			}
		}
		var file strings.Builder
		for _, title := range slices.Sorted(maps.Keys(x.got)) {
			file.WriteString("# " + title + "\n" + x.got[title] + "\n")
		}
		assert.NoError(t, os.WriteFile(path, []byte(file.String()), 0o644))
	})
	return x
}

// requestID is what each request has another of, in the body of an error.
var requestID = regexp.MustCompile(`,"requestId":"[0-9a-f]{32}"`)

// Equal compares the text of a title, without ids of requests.
func (x *Texts) Equal(t testing.TB, title, got string) {
	t.Helper()
	x.mu.Lock()
	defer x.mu.Unlock()
	got = requestID.ReplaceAllString(got, "")
	x.got[title] = got
	if !*update {
		want, known := x.want[title]
		assert.True(t, known, "the golden file has no text %q", title)
		assert.Equal(t, want, got)
	}
}
