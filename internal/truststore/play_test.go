package truststore

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
)

// Commands put files into a directory, say what is to be merged and copied, and have that checked or done.
func TestRun(t *testing.T) {
	golden.Play(t, "runs/*.txt", func(t *testing.T, _, commands string) (outcomes string) {
		p := &player{place: newPlace(t)}
		require.NoError(t, os.Chmod(p.dir, 0o755))
		for command := range strings.Lines(commands) {
			verb, rest, _ := strings.Cut(strings.TrimSpace(command[2:]), " ")
			outcomes += command
			if outcome := strings.TrimSpace(p.follow(verb, rest)); outcome != "" {
				for n, r := range testPKI().roots {
					outcome = strings.ReplaceAll(outcome, digestOf(r.Raw), fmt.Sprint("DIGEST-", n))
				}
				outcomes += strings.ReplaceAll(outcome, p.dir, "DIR") + "\n"
			}
		}
		return outcomes
	})
}

type player struct {
	place
	cfg    Config
	step   files.StepFunc
	logged string // by the last run, without times
	other  string // the file that another process writes meanwhile

	owned    string // the file that another user owns
	uid, gid int
}

// follow does to the place, or to what is configured, what a command says.
func (p *player) follow(verb, rest string) (outcome string) {
	store := map[string]int{"truststore": 0, "second": 1, "password": 0}
	name, argument, _ := strings.Cut(rest, " ")
	path := p.path(name)
	var err error
	switch verb {
	case "scene":
		p.place, p.cfg = newScene(p.t)
		err = os.Chmod(p.dir, 0o755)
	case "put":
		p.putAll(name, fixture.Must(strconv.Unquote(`"`+argument+`"`)))
	case "append":
		before := p.read(name)
		p.putAll(name, argument)
		err = os.WriteFile(path, append(before, p.read(name)...), 0o640)
	case "remove":
		err = os.Remove(path)
	case "mkdir":
		err = os.Mkdir(path, 0o755)
	case "link":
		err = os.Symlink(argument, path)
	case "truncate":
		err = os.Truncate(path, int64(fixture.Must(strconv.Atoi(argument))))
	case "chmod":
		err = os.Chmod(p.path(argument), os.FileMode(fixture.Must(strconv.ParseUint(name, 8, 32))))
	case "own": // by another user, where root runs the test
		if p.owned, p.uid, p.gid = name, os.Geteuid(), os.Getegid(); p.uid == 0 {
			p.uid, p.gid = 1234, 4321
			err = os.Chown(path, p.uid, p.gid)
		}
	case "holds":
		require.Equal(p.t, argument, string(p.read(name)), name)
	case "full": // is the disk, while doing that to the file
		p.step = full(name, argument)
	case "meanwhile": // another process puts the file there
		p.other, p.step = name, func(op, path string) error {
			if full(files.OpWrite, name)(op, path) != nil {
				p.putAll(name, argument)
			}
			return nil
		}
	case "undisturbed":
		p.step = nil
	case "merge":
		p.cfg = p.merge(strings.Fields(rest)...)
	case "alone":
		p.cfg.Truststores = p.cfg.Truststores[:1]
	case "copy":
		p.cfg = p.copying(p.cfg, name, argument)
	case "source":
		p.cfg.Keystores[0].Source = path
	case "destination":
		p.cfg.Keystores[0].Destination = path
	case "truststore", "second":
		p.cfg.Truststores[store[verb]].Path = path
	case "password":
		if p.cfg.Truststores[0].PasswordPath = path; name == "" {
			p.cfg.Truststores[0].PasswordPath = ""
		}
	case "check":
		before := p.listing()
		for _, err := range newRun(p.cfg, p.step).check(p.cfg, later) {
			outcome += err.Error() + "\n"
		}
		assert.Equal(p.t, before, p.listing(), "Check has changed something")
	case "run":
		return p.tryRun()
	case "log":
		return p.logged
	case "warnings":
		for line := range strings.Lines(p.logged) {
			if strings.Contains(line, "level=WARN") {
				outcome += line
			}
		}
	case "contents":
		return p.contents(name)
	case "files":
		for _, name := range p.names() {
			if name != "changeit.pass" && filepath.Ext(name) != ".state" {
				outcome += fmt.Sprintf("%s: %s\n", name, p.read(name))
			}
		}
	case "modes":
		list := p.listing()
		for _, name := range p.names() {
			if name == "changeit.pass" {
				continue
			}
			link, _ := os.Readlink(p.path(name))
			outcome += strings.TrimSpace(fmt.Sprintf("%s %s %s", list[name].mode, name, link)) + "\n"
			if p.owned != "" && strings.HasPrefix(name, p.owned) {
				info := fixture.Must(os.Stat(p.path(name))).Sys().(*syscall.Stat_t)
				assert.Equal(p.t, []int{p.uid, p.gid}, []int{int(info.Uid), int(info.Gid)}, name)
			}
		}
	default:
		p.t.Fatalf("unknown command %q", verb)
	}
	require.NoError(p.t, err, "%s %s", verb, rest)
	return outcome
}

// tryRun runs once, and again when that succeeds, which changes nothing. It says what a run has changed, and why it
// ended; one that fails changes nothing else.
func (p *player) tryRun() (outcome string) {
	before, contents := p.listing(), map[string][]byte{}
	destinations := fixture.Each(p.cfg.Keystores, func(c Copy) string { return c.Destination })
	if len(p.cfg.Truststores) > 0 {
		destinations = append(destinations, p.cfg.Truststores[0].Path)
	}
	for _, path := range destinations {
		contents[path], _ = os.ReadFile(path)
	}
	var log strings.Builder
	result, err := newRun(p.cfg, p.step).do(p.cfg, slog.New(slog.NewTextHandler(&log, nil)))
	p.logged = regexp.MustCompile(`(?m)^time=\S+ `).ReplaceAllString(log.String(), "")
	for _, a := range result.Added {
		outcome += fmt.Sprintf("added %q, %s, %s, from %s\n", a.Alias, a.Subject, a.SHA256, a.From)
	}
	for _, r := range result.Replaced {
		outcome += "replaced " + r.Path
		if kept, _ := os.ReadFile(r.Backup); r.Backup != "" && bytes.Equal(kept, contents[r.Path]) {
			outcome += ", whose content is now in " + r.Backup
		} else if r.Backup != "" {
			outcome += ", with the backup " + r.Backup
		}
		outcome += "\n"
	}
	after := p.listing()
	for name := range after {
		assert.NotContains(p.t, name, temporaryMark)
	}
	if err != nil {
		if !result.Changed() {
			for name, was := range before {
				if name != p.other {
					assert.Equal(p.t, was, after[name], name)
				}
			}
		}
		return outcome + fmt.Sprintf("exit %d: %v", ExitCode(err), err)
	}
	if !result.Changed() {
		return "nothing changed"
	}
	if len(result.Added) > 0 {
		path := p.cfg.Truststores[0].Path
		head := map[bool]int{true: 8, false: 2}[contents[path][0] == 0xfe]
		assert.Equal(p.t, contents[path][:head], fixture.Must(os.ReadFile(path))[:head],
			"the format, and in JKS the version, has changed")
	}
	assert.False(p.t, p.run(p.cfg).Changed())
	return outcome
}
