package doctor_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/checks"
	"github.com/certfetcher/certfetcher/internal/doctor"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/service"
)

func TestRun_group(t *testing.T) {
	_, o := start(t, service.Options{})
	o.Config.Output.Group = "54321"
	_, found := run(t, o)
	if os.Geteuid() == 0 {
		assert.Equal(t, "wrote, synced, renamed and removed files; those with secrets get mode 0640, uid 0, gid 54321",
			found["writing"].Found)
		return
	}
	assert.Equal(t, checks.Failed, found["writing"].Status)
	assert.Regexp(t, `^setting the group of ".*": operation not permitted$`, found["writing"].Found)
	assert.Contains(t, found["writing"].Advice, "only a member of a group may give files to it: ")
}

func TestRun_reader_whoseGroupsMayHelp(t *testing.T) {
	uid, gid := os.Geteuid(), os.Getegid()
	_, o := start(t, service.Options{})
	require.NoError(t, os.Chmod(filepath.Dir(o.Config.Output.Dir), 0o755))
	o.Reader = &doctor.Reader{UID: uid + 1000, GID: gid + 100_000}
	_, found := run(t, o)
	groups := fixture.Must(os.Getgroups())
	want := checks.Failed
	if slices.Contains(groups, gid) {
		want = checks.Warning
	}
	assert.Equal(t, want, found["reader"].Status)
}

func TestRun_reader_isRoot(t *testing.T) {
	_, o := start(t, service.Options{})
	o.Reader = &doctor.Reader{UID: 0, GID: os.Getegid() + 1000}
	o.Config.Output.FileMode = 0o400
	_, found := run(t, o)
	if os.Geteuid() == 0 {
		assert.Equal(t, checks.OK, found["reader"].Status)
		return
	}
	assert.Equal(t, checks.Warning, found["reader"].Status)
	assert.Contains(t, found["reader"].Found, "root may with the capability DAC_OVERRIDE")
}

// PostgreSQL looks at owner and mode of its key itself: a test of internal/notify has it refuse one.
func TestRun_readerIsPostgreSQL(t *testing.T) {
	uid, gid := os.Geteuid(), os.Getegid()
	reader, fits, tooOpen := doctor.Reader{UID: uid, GID: gid}, os.FileMode(0o600), os.FileMode(0o640)
	refusal := "it has mode 0640, and where PostgreSQL owns the key, 0600 is the most"
	if uid == 0 { // root's own keys are another case
		reader.UID, fits, tooOpen = 1000, 0o640, 0o644
		refusal = "it has mode 0644, and where root owns the key, 0640 is the most"
	}
	_, o := start(t, service.Options{})
	require.NoError(t, os.Chmod(filepath.Dir(o.Config.Output.Dir), 0o755))
	o.Config.Output.FileMode, o.Config.Output.Types, o.Reader = fits, []string{"PEM"}, &reader
	found := reader.String() + " can reach and read the files"
	for _, want := range []string{found, found + "; PostgreSQL alone would refuse key.pem: " + refusal} {
		_, checked := run(t, o)
		assert.Equal(t, "ok: "+want, string(checked["reader"].Status)+": "+checked["reader"].Found)
		o.Config.Output.FileMode = tooOpen
	}
	o.Config.Notify.Verify = "postgres://127.0.0.9:1"
	report, checked := run(t, o)
	assert.Equal(t, checks.Failed, checked["reader"].Status)
	assert.Equal(t, found+", but PostgreSQL refuses key.pem: "+refusal, checked["reader"].Found)
	assert.Equal(t, 10, report.ExitCode())
}

func TestParseReader(t *testing.T) {
	for words, want := range map[string]*doctor.Reader{" ": nil, "1000 2000": {UID: 1000, GID: 2000},
		" 0": {UID: -1, GID: 0}} {
		uid, gid, _ := strings.Cut(words, " ")
		assert.Equal(t, want, fixture.Must(doctor.ParseReader(uid, gid)), words)
	}
	_, err := doctor.ParseReader("app", "")
	assert.EqualError(t, err, `uid is "app", want a number`)
	_, err = doctor.ParseReader("1", "-1")
	assert.EqualError(t, err, `gid is "-1", want a number`)
}
