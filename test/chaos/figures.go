package chaos

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
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

// Record logs a figure of the running test, and keeps it when FIGURES=write, which make chaos sets. Rows of the same
// test with the same key replace one another; the key orders the rows of one test and is in no document.
func Record(t testing.TB, key, tried, result string) {
	t.Helper()
	t.Logf("%s: %s", tried, result)
	if os.Getenv("FIGURES") != "write" || t.Failed() {
		return
	}
	lock, err := os.Open(filepath.Dir(Path())) // tests of several packages write at the same time
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	all, err := Read()
	if err != nil {
		t.Fatal(err)
	}
	all[t.Name()+" "+key] = Figure{Test: t.Name(), Tried: tried, Result: result}
	if err := write(all); err != nil {
		t.Fatal(err)
	}
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

func write(all map[string]Figure) error {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(all); err != nil {
		return err
	}
	return os.WriteFile(Path(), text.Bytes(), 0o644)
}
