package chaos

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// Figure is one row of the table in docs/reliability.md.
type Figure struct {
	Test   string `json:"test"`   // the name of the test that measured it
	Tried  string `json:"tried"`  // what was done to the programs, with its numbers
	Result string `json:"result"` // what came of it, with its numbers and units
}

// Path is the file with all figures, in the order of their tests' names and of what was tried.
func Path() string {
	_, here, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(here), "..", "testdata", "figures.json")
}

//go:embed figures.txt
var texts string

// Record logs a figure of the running test, and keeps it when FIGURES=write, which make chaos sets. Its text is that of
// figures.txt for the test and the key, or for the test, with the values. Rows of the same test with the same key
// replace one another; the key orders the rows of one test and is in no document.
func Record(t testing.TB, key string, values ...any) {
	t.Helper()
	test, _, _ := strings.Cut(t.Name(), "/")
	_, text, found := strings.Cut(texts, "# "+test+" "+key+"\n")
	if !found {
		_, text, _ = strings.Cut(texts, "# "+test+"\n")
	}
	text, _, _ = strings.Cut(text, "\n\n")
	text = fmt.Sprintf(strings.ReplaceAll(strings.TrimSpace(text), "\n", " "), values...)
	tried, result, found := strings.Cut(text, " => ")
	if !found || strings.Contains(text, "%!") {
		t.Fatalf("figures.txt has no text that suits: %q", text)
	}
	t.Logf("%s: %s", tried, result)
	if os.Getenv("FIGURES") != "write" || t.Failed() {
		return
	}
	lock, err := os.Open(filepath.Dir(Path())) // tests of several packages write at the same time
	require.NoError(t, err)
	defer lock.Close()
	require.NoError(t, syscall.Flock(int(lock.Fd()), syscall.LOCK_EX))
	all := fixture.Must(Read())
	all[t.Name()+" "+key] = Figure{Test: t.Name(), Tried: tried, Result: result}
	var file bytes.Buffer
	encoder := json.NewEncoder(&file)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	require.NoError(t, encoder.Encode(all))
	require.NoError(t, os.WriteFile(Path(), file.Bytes(), 0o644))
}

// Read returns all figures by test and key; none where no file was written yet.
func Read() (map[string]Figure, error) {
	all := map[string]Figure{}
	data, err := os.ReadFile(Path())
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	if err != nil {
		return nil, err
	}
	return all, json.Unmarshal(data, &all)
}
