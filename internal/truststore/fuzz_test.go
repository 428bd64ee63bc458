package truststore

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// Whatever can be read as a truststore can be merged into, keeps what it had, and is then done.
func FuzzRun(f *testing.F) {
	f.Add(jks(keyAnd("application", trusted("a", 0)...)...))
	f.Add(p12(trusted("a", 0)...))
	f.Add(passwordless(trusted("a", 0, "b", 1)...))
	f.Add(pemOf(0, 1))
	f.Add([]byte("text\n" + string(pemOf(0))))
	f.Fuzz(func(t *testing.T, data []byte) {
		p := newPlace(t, "base", data)
		cfg := p.merge("base")
		base, err := newRun(cfg, nil).load(cfg.Truststores[0])
		if err != nil {
			return
		}
		others := []*store{{path: "other.pem", trusted: trusted("", 5)}}
		missing, _ := base.missing(others)
		if len(missing) == 0 {
			return
		}
		merged, err := base.with(missing, fixedTime)
		if err != nil {
			return
		}
		if err := base.verify(merged, missing); err != nil {
			t.Fatal(err)
		}
		p.write("base", merged)
		if base, err = newRun(cfg, nil).load(cfg.Truststores[0]); err != nil {
			t.Fatal(err)
		}
		if missing, _ = base.missing(others); len(missing) > 0 {
			t.Fatal("what was added is missing")
		}
	})
}

// A state of any content names a backup of the destination, or none.
func FuzzReadState(f *testing.F) {
	f.Add([]byte("backup: app.bak\nwritten: " + digestOf(nil) + "\n"))
	f.Add([]byte("backup: none\nwritten: \n"))
	f.Add([]byte("backup: app.bak/../../etc/passwd\nwritten: \n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "app")
		if err := os.WriteFile(path+stateSuffix, data, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := readState(path)
		if err != nil {
			t.Fatal(err)
		}
		if s.backup != "" && (filepath.Dir(s.backup) != filepath.Dir(path) || s.backup == path) {
			t.Fatalf("backup is %q", s.backup)
		}
		if slices.Contains(s.written, "") {
			t.Fatal("an empty digest counts as written")
		}
	})
}
