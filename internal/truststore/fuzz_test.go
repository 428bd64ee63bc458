package truststore

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Whatever can be read as a truststore can be merged into, keeps what it had, and is then done.
func FuzzRun(f *testing.F) {
	for _, spec := range []string{"jks a=0 application=key", "p12 a=0", "clear a=0 b=1", "pem 0 1"} {
		f.Add(made(spec))
	}
	f.Add([]byte("text\n" + string(made("pem 0"))))
	f.Fuzz(func(t *testing.T, data []byte) {
		p := newPlace(t, "base", "")
		cfg := p.merge("base")
		require.NoError(t, os.WriteFile(p.path("base"), data, 0o600))
		base, err := newRun(cfg, nil).load(cfg.Truststores[0])
		if err != nil {
			return
		}
		others := []*store{{path: "other.pem", trusted: entries("=5")}}
		missing, _ := base.missing(others)
		if len(missing) == 0 {
			return
		}
		merged, err := base.with(missing, fixedTime)
		if err != nil {
			return
		}
		require.NoError(t, base.verify(merged, missing))
		require.NoError(t, os.WriteFile(p.path("base"), merged, 0o600))
		base, err = newRun(cfg, nil).load(cfg.Truststores[0])
		require.NoError(t, err)
		missing, _ = base.missing(others)
		require.Empty(t, missing, "what was added")
	})
}

// A state of any content names a backup of the destination, or none.
func FuzzReadState(f *testing.F) {
	f.Add([]byte("backup: app.bak\nwritten: " + digestOf(nil) + "\n"))
	f.Add([]byte("backup: none\nwritten: \n"))
	f.Add([]byte("backup: app.bak/../../etc/passwd\nwritten: \n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "app")
		require.NoError(t, os.WriteFile(path+stateSuffix, data, 0o600))
		s, err := readState(path)
		require.NoError(t, err)
		if s.backup != "" {
			require.Equal(t, filepath.Dir(path), filepath.Dir(s.backup))
			require.NotEqual(t, path, s.backup)
		}
		require.NotContains(t, s.written, "")
	})
}
