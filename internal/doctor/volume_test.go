package doctor_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/config"
	"github.com/certfetcher/certfetcher/internal/doctor"
	"github.com/certfetcher/certfetcher/output"
	"github.com/certfetcher/certfetcher/test/service"
)

// publish puts a set on the volume, as certfetcher would.
func publish(t *testing.T, s *service.Service, o config.Output) {
	t.Helper()
	key, chain, err := s.CA.Identity("app.example.org")
	require.NoError(t, err)
	volume, err := output.Open(output.Config{Dir: o.Dir, Types: o.Types, Layout: o.Layout, FileMode: o.FileMode})
	require.NoError(t, err)
	_, err = volume.Publish(output.Bundle{Key: key, Chain: chain, Trusted: append(chain[:0:0], s.CA.Root)})
	require.NoError(t, err)
}

func expand(text, dir string) string { return strings.ReplaceAll(text, "{dir}", dir) }

func TestRun_publishedSet(t *testing.T) {
	for sentence, row := range map[string]struct {
		change func(t *testing.T, o *doctor.Options)
		status doctor.Status
		found  string
	}{
		"valid":   {func(*testing.T, *doctor.Options) {}, doctor.OK, `certificate for "CN=app.example.org", valid until …, for 24h0m0s`},
		"expired": {func(_ *testing.T, o *doctor.Options) { o.Now = func() time.Time { return time.Now().AddDate(0, 0, 2) } }, doctor.Warning, `certificate for "CN=app.example.org", expired at …`},
		"requested differently": {func(_ *testing.T, o *doctor.Options) { o.Config.Certificate.KeyAlgorithm = "RSA-2048" }, doctor.Warning,
			`certificate for "CN=app.example.org", valid until …, for 24h0m0s, but the key on the volume is ECDSA-P256, KEY_ALGORITHM asks for RSA-2048`},
		"of another type": {func(_ *testing.T, o *doctor.Options) { o.Config.Output.Types = []string{"JKS"} }, doctor.Warning,
			`certificate for "CN=app.example.org", valid until …, but "{dir}/truststore.p12" belongs to output type P12, want only files of JKS`},
		"without its password": {func(t *testing.T, o *doctor.Options) {
			require.NoError(t, os.Remove(filepath.Join(o.Config.Output.Dir, "..data", "keystore.pass")))
		}, doctor.Warning, `no certificate, but "{dir}/keystore.pass" is missing`},
	} {
		t.Run(sentence, func(t *testing.T) {
			s, o := start(t, service.Options{})
			publish(t, s, o.Config.Output)
			row.change(t, &o)
			_, checks := run(t, o)
			assert.Equal(t, row.status, checks["published"].Status)
			requireText(t, expand(row.found, o.Config.Output.Dir), checks["published"].Found)
		})
	}
}

func TestRun_volume(t *testing.T) {
	for sentence, row := range map[string]struct {
		change  func(t *testing.T, o *config.Output)
		check   string
		status  doctor.Status
		found   string
		code    int
		skipped []string
	}{
		"is a directory": {func(t *testing.T, o *config.Output) { require.NoError(t, os.Chmod(o.Dir, 0o2770|os.ModeSetgid)) },
			"volume", doctor.OK, fmt.Sprintf(`"{dir}" has mode 0770 (rwxrwx---) with setgid, uid %d, gid %d`, os.Geteuid(), os.Getegid()), 0, nil},
		"is missing": {func(t *testing.T, o *config.Output) { o.Dir = filepath.Join(o.Dir, "a", "b") },
			"volume", doctor.OK, `"{dir}" is missing and will be made; …`, 0, nil},
		"is a file": {func(t *testing.T, o *config.Output) {
			o.Dir = filepath.Join(o.Dir, "file")
			require.NoError(t, os.WriteFile(o.Dir, nil, 0o600))
		}, "volume", doctor.Failed, `"{dir}" is a file, want a directory`, 10, []string{"writing", "layout", "reader", "published"}},
		"is below a file": {func(t *testing.T, o *config.Output) {
			file := filepath.Join(o.Dir, "file")
			require.NoError(t, os.WriteFile(file, nil, 0o600))
			o.Dir = filepath.Join(file, "below")
		}, "volume", doctor.Failed, `…/file" is a file, want a directory`, 10, []string{"writing", "layout", "reader", "published"}},
		"is a link to nothing": {func(t *testing.T, o *config.Output) {
			o.Dir = filepath.Join(o.Dir, "link")
			require.NoError(t, os.Symlink("nothing", o.Dir))
		}, "volume", doctor.Failed, `"{dir}" is a link to a directory that does not exist`, 10, []string{"writing", "layout", "reader", "published"}},
		"is for a group that is not there": {func(t *testing.T, o *config.Output) { o.Group = "no-such-group" },
			"writing", doctor.Failed, `finding group "no-such-group": no group of that name in /etc/group, give its number`, 10, []string{"layout", "reader"}},
		"is in place": {func(t *testing.T, o *config.Output) { o.Layout = "inplace" }, "layout", doctor.OK, "inplace, by renames, which work", 0, nil},
		"keeps modes and owners": {func(*testing.T, *config.Output) {}, "writing", doctor.OK,
			fmt.Sprintf("wrote, synced, renamed and removed files; those with secrets get mode 0640, uid %d, gid %d", os.Geteuid(), os.Getegid()), 0, nil},
	} {
		t.Run(sentence, func(t *testing.T) {
			_, o := start(t, service.Options{})
			row.change(t, &o.Config.Output)
			report, checks := run(t, o)
			assert.Equal(t, row.status, checks[row.check].Status)
			requireText(t, expand(row.found, o.Config.Output.Dir), checks[row.check].Found)
			assert.Equal(t, row.code, report.ExitCode())
			for _, name := range row.skipped {
				requireOutcomes(t, checks, map[string]doctor.Status{name: doctor.Skipped})
			}
		})
	}
}

func TestRun_group(t *testing.T) {
	_, o := start(t, service.Options{})
	o.Config.Output.Group = "54321"
	_, checks := run(t, o)
	if os.Geteuid() == 0 {
		assert.Equal(t, "wrote, synced, renamed and removed files; those with secrets get mode 0640, uid 0, gid 54321", checks["writing"].Found)
		return
	}
	assert.Equal(t, doctor.Failed, checks["writing"].Status)
	requireText(t, `setting the group of "…": operation not permitted`, checks["writing"].Found)
	requireText(t, "running as …; only a member of a group may give files to it: …", checks["writing"].Advice)
}

func TestRun_reader(t *testing.T) {
	uid, gid := os.Geteuid(), os.Getegid()
	stranger := doctor.Reader{UID: uid + 1000, GID: gid + 1000}
	for sentence, row := range map[string]struct {
		reader doctor.Reader
		change func(t *testing.T, o *config.Output)
		status doctor.Status
		found  string
	}{
		"of the same user reads what no one else may": {doctor.Reader{UID: uid, GID: gid + 1000}, func(_ *testing.T, o *config.Output) { o.FileMode = 0o600 },
			doctor.OK, fmt.Sprintf("uid %d, gid %d can reach and read the files", uid, gid+1000)},
		"of the same group reads what the group may": {doctor.Reader{UID: uid + 1000, GID: gid}, nil,
			doctor.OK, fmt.Sprintf("uid %d, gid %d can reach and read the files", uid+1000, gid)},
		"of which the group is all that is known": {doctor.Reader{UID: -1, GID: gid}, nil, doctor.OK, fmt.Sprintf("gid %d can reach and read the files", gid)},
		"of the same group does not read what only the user may": {doctor.Reader{UID: uid + 1000, GID: gid}, func(_ *testing.T, o *config.Output) { o.FileMode = 0o600 },
			doctor.Failed, fmt.Sprintf("uid %d, gid %d may not read: a file with secrets has mode 0600 (rw-------), uid %d, gid %d", uid+1000, gid, uid, gid)},
		"that is a stranger reads what everyone may": {stranger, func(_ *testing.T, o *config.Output) { o.FileMode = 0o644 },
			doctor.OK, stranger.String() + " can reach and read the files"},
		"that is a stranger does not enter what others may not": {stranger, func(t *testing.T, o *config.Output) {
			o.FileMode = 0o644
			require.NoError(t, os.Chmod(o.Dir, 0o700))
		}, doctor.Failed, fmt.Sprintf(`%s may not enter: "{dir}" has mode 0700 (rwx------), uid %d, gid %d`, stranger, uid, gid)},
		"is not hindered by the trial's directory, in place": {stranger, func(_ *testing.T, o *config.Output) {
			o.FileMode, o.Layout = 0o604, "inplace"
		}, doctor.OK, stranger.String() + " can reach and read the files"},
	} {
		t.Run(sentence, func(t *testing.T) {
			_, o := start(t, service.Options{})
			// A volume is a mount point, and nothing above it counts; here the test's own directory does.
			require.NoError(t, os.Chmod(filepath.Dir(o.Config.Output.Dir), 0o755))
			if row.change != nil {
				row.change(t, &o.Config.Output)
			}
			o.Reader = &row.reader
			report, checks := run(t, o)
			assert.Equal(t, row.status, checks["reader"].Status)
			assert.Equal(t, expand(row.found, o.Config.Output.Dir), checks["reader"].Found)
			if row.status == doctor.Failed {
				assert.Equal(t, 10, report.ExitCode())
			}
		})
	}
}

func TestRun_reader_ofPublishedFiles(t *testing.T) {
	uid, gid := os.Geteuid(), os.Getegid()
	s, o := start(t, service.Options{})
	require.NoError(t, os.Chmod(filepath.Dir(o.Config.Output.Dir), 0o755))
	publish(t, s, o.Config.Output)
	o.Reader = &doctor.Reader{UID: uid + 1000, GID: gid}
	_, checks := run(t, o)
	require.Equal(t, doctor.OK, checks["reader"].Status)

	keystore, err := filepath.EvalSymlinks(filepath.Join(o.Config.Output.Dir, "keystore.p12"))
	require.NoError(t, err)
	require.NoError(t, os.Chmod(keystore, 0o600))
	_, checks = run(t, o)
	assert.Equal(t, doctor.Failed, checks["reader"].Status)
	assert.Equal(t, fmt.Sprintf("uid %d, gid %d may not read: %q has mode 0600 (rw-------), uid %d, gid %d", uid+1000, gid, keystore, uid, gid), checks["reader"].Found)
}

func TestRun_reader_whoseGroupsMayHelp(t *testing.T) {
	uid, gid := os.Geteuid(), os.Getegid()
	_, o := start(t, service.Options{})
	require.NoError(t, os.Chmod(filepath.Dir(o.Config.Output.Dir), 0o755))
	o.Reader = &doctor.Reader{UID: uid + 1000, GID: gid + 100_000}
	_, checks := run(t, o)
	groups, err := os.Getgroups()
	require.NoError(t, err)
	want := doctor.Failed
	if slices.Contains(groups, gid) {
		want = doctor.Warning
	}
	assert.Equal(t, want, checks["reader"].Status)
}

func TestRun_reader_isRoot(t *testing.T) {
	_, o := start(t, service.Options{})
	o.Reader = &doctor.Reader{UID: 0, GID: os.Getegid() + 1000}
	o.Config.Output.FileMode = 0o400
	_, checks := run(t, o)
	if os.Geteuid() == 0 {
		assert.Equal(t, doctor.OK, checks["reader"].Status)
		return
	}
	assert.Equal(t, doctor.Warning, checks["reader"].Status)
	assert.Contains(t, checks["reader"].Found, "root may with the capability DAC_OVERRIDE")
}

// PostgreSQL looks at owner and mode of its key itself: a test of internal/notify has it refuse one.
func TestRun_readerIsPostgreSQL(t *testing.T) {
	uid, gid := os.Geteuid(), os.Getegid()
	owner, member := doctor.Reader{UID: uid, GID: gid}, doctor.Reader{UID: uid + 1000, GID: gid}
	for sentence, row := range map[string]struct {
		reader   doctor.Reader
		mode     os.FileMode
		refusal  string
		rootOnly bool
	}{
		"and owns the key alone":                   {reader: owner, mode: 0o600},
		"and owns a key that its group may read":   {reader: owner, mode: 0o640, refusal: "it has mode 0640, and where PostgreSQL owns the key, 0600 is the most"},
		"and root owns the key":                    {reader: member, mode: 0o640, rootOnly: true},
		"and root owns a key that others may read": {reader: member, mode: 0o644, rootOnly: true, refusal: "it has mode 0644, and where root owns the key, 0640 is the most"},
	} {
		t.Run(sentence, func(t *testing.T) {
			if uid == 0 && !row.rootOnly && row.mode != 0o600 {
				t.Skip("root's own keys are another case")
			}
			if uid != 0 && row.rootOnly {
				row.refusal = fmt.Sprintf("it belongs to uid %d, and not to uid %d or root", uid, uid+1000)
			}
			_, o := start(t, service.Options{})
			require.NoError(t, os.Chmod(filepath.Dir(o.Config.Output.Dir), 0o755))
			o.Config.Output.FileMode, o.Config.Output.Types, o.Reader = row.mode, []string{"PEM"}, &row.reader
			found := row.reader.String() + " can reach and read the files"
			_, checks := run(t, o)
			assert.Equal(t, doctor.OK, checks["reader"].Status)
			if row.refusal == "" {
				assert.Equal(t, found, checks["reader"].Found)
				return
			}
			assert.Equal(t, found+"; PostgreSQL alone would refuse key.pem: "+row.refusal, checks["reader"].Found)

			o.Config.Notify.Verify = "postgres://127.0.0.9:1"
			report, checks := run(t, o)
			assert.Equal(t, doctor.Failed, checks["reader"].Status)
			assert.Equal(t, found+", but PostgreSQL refuses key.pem: "+row.refusal, checks["reader"].Found)
			assert.Equal(t, 10, report.ExitCode())
		})
	}
}

func TestParseReader(t *testing.T) {
	none, err := doctor.ParseReader("", "")
	require.NoError(t, err)
	assert.Nil(t, none)
	both, err := doctor.ParseReader("1000", "2000")
	require.NoError(t, err)
	assert.Equal(t, &doctor.Reader{UID: 1000, GID: 2000}, both)
	group, err := doctor.ParseReader("", "0")
	require.NoError(t, err)
	assert.Equal(t, &doctor.Reader{UID: -1, GID: 0}, group)
	_, err = doctor.ParseReader("app", "")
	assert.EqualError(t, err, `uid is "app", want a number`)
	_, err = doctor.ParseReader("1", "-1")
	assert.EqualError(t, err, `gid is "-1", want a number`)
}
