package output

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
)

// player does what the lines of scripts in testdata say to a volume of its own, or to its configuration.
type player struct {
	t       *testing.T
	cfg     Config
	volumes map[string]*Volume // by names that scripts give them; "" is the one meant without
	bundles map[string]Bundle
	numbers map[string]int // of publications, by those of their bundles
	last    Publication
	kept    map[string]string // files' contents
	held    map[string]os.FileInfo
	listed  map[string]string
	now     time.Time
	seen    []string // generations, in order
	reader  string   // the generation that a reader has resolved
	step    files.StepFunc
	log     bytes.Buffer
	home    string // the directory that was configured first
}

func newPlayer(t *testing.T, cfg Config) *player {
	p := &player{t: t, cfg: cfg, volumes: map[string]*Volume{}, bundles: map[string]Bundle{}, now: start,
		numbers: map[string]int{"0": 0}, kept: map[string]string{}, held: map[string]os.FileInfo{}, home: cfg.Dir}
	p.cfg.Log = slog.New(slog.NewTextHandler(&p.log, nil))
	return p
}

// play follows lines; " -> " stands before what comes of one, and the name of a layout and a colon before one for that
// layout only, or "not root: " before one that is not for root. OTHER is the other layout, NOTE the file of the note,
// DIR the directory. end ends the script.
func (p *player) play(lines ...string) {
	p.t.Helper()
	for _, line := range lines {
		if who, rest, _ := strings.Cut(line, ": "); slices.Contains(layouts, who) || who == "not root" {
			if line = rest; who != p.cfg.Layout && (who != "not root" || os.Geteuid() == 0) {
				continue
			}
		}
		if line == "end" {
			return
		} else if line == "" {
			continue
		}
		if repeated, isRepeated := strings.CutPrefix(line, "times "); isRepeated {
			number, rest, _ := strings.Cut(repeated, " ")
			for range fixture.Must(strconv.Atoi(number)) {
				p.play(strings.Split(rest, "; ")...)
			}
			continue
		}
		command, want, _ := strings.Cut(line, " -> ")
		note := strings.TrimPrefix(notePath(p.cfg), p.cfg.Dir+"/")
		other := map[string]string{LayoutSymlink: LayoutInplace, LayoutInplace: LayoutSymlink}[p.cfg.Layout]
		words := strings.Fields(strings.NewReplacer("NOTE", note, "OTHER", other, "DIR", p.home,
			"OURS", strconv.Itoa(os.Getegid())).Replace(command))
		got, err := p.do(words[0], words[1:])
		if err != nil {
			got = err.Error()
		}
		if err != nil || command != line {
			got = strings.TrimSpace(strings.ReplaceAll(got, p.home, "DIR"))
			got = strings.Replace(got, fmt.Sprintf("group %d, want %d", os.Getegid()+1, os.Getegid()),
				"group THEIRS, want OURS", 1)
			require.Equal(p.t, want, anyStaged.ReplaceAllString(got, "/..stage/FILE"), line)
		}
	}
}

var anyStaged = regexp.MustCompile(`/\.\.stage/[^"]+`)

// bundle is the one of a name, which is issued when it is first named.
func (p *player) bundle(name string) Bundle {
	if _, known := p.bundles[name]; !known || name == "" {
		b, same := newBundle(), p.bundles["same"]
		switch name {
		case "shorter-chain":
			b.Key, b.Chain = same.Key, same.Chain[:1]
		case "other-trust":
			b = Bundle{same.Key, same.Chain, b.Chain[1:], nil}
		}
		p.bundles[name] = b
	}
	return p.bundles[name]
}

func (p *player) do(verb string, args []string) (string, error) {
	p.t.Helper()
	name, second := "", ""
	if len(args) > 0 {
		name = args[0]
	}
	if len(args) > 1 {
		second = args[1]
	}
	path := filepath.Join(p.cfg.Dir, name)
	switch verb {
	case "remove":
		for _, name := range args {
			if err := os.Remove(filepath.Join(p.cfg.Dir, name)); err != nil {
				return "", err
			}
		}
	case "remove-all":
		return "", os.RemoveAll(path)
	case "empty":
		return "", errors.Join(os.RemoveAll(p.cfg.Dir), os.Mkdir(p.cfg.Dir, 0o750))
	case "mkdir":
		for _, name := range args {
			require.NoError(p.t, os.Mkdir(filepath.Join(p.cfg.Dir, name), 0o700))
		}
	case "link":
		return "", os.Symlink(second, path)
	case "pipe":
		return "", syscall.Mkfifo(path, 0o600)
	case "truncate":
		return "", os.Truncate(path, fixture.Must(strconv.ParseInt(second, 10, 64)))
	case "chmod":
		return "", syscall.Chmod(path, uint32(fixture.Must(strconv.ParseUint(second, 8, 32))))
	case "give-away":
		return "", os.Chown(path, -1, os.Getegid()+1)
	case "write": // a text, or one in quotes as in Go
		text := strings.Join(args[1:], " ")
		if quoted, err := strconv.Unquote(text); err == nil {
			text = quoted
		}
		writeFile(p.t, p.cfg.Dir, name, text)
	case "copy": // to the first name, from all others
		var data string
		for _, from := range args[1:] {
			data += readFile(p.cfg.Dir, from)
		}
		writeFile(p.t, p.cfg.Dir, name, data)
	case "foreign": // from a volume with that bundle and the same passwords
		from := p.cfg
		from.Dir = filepath.Join(p.t.TempDir(), "other")
		from.KeystorePassword = readFile(p.cfg.Dir, keystorePass)
		from.TruststorePassword = readFile(p.cfg.Dir, truststorePass)
		mustPublish(p.t, mustOpen(p.t, from), p.bundle(name))
		writeFile(p.t, p.cfg.Dir, second, readFile(from.Dir, second))
	case "set":
		switch field := reflect.ValueOf(&p.cfg).Elem().FieldByName(name); field.Kind() {
		case reflect.Slice:
			field.Set(reflect.ValueOf(args[1:]))
		case reflect.Uint32:
			field.SetUint(fixture.Must(strconv.ParseUint(second, 8, 32)))
		case reflect.Bool:
			field.SetBool(second == "true")
		default:
			field.SetString(second)
		}

	case "stat":
		info, err := os.Lstat(path)
		if err != nil {
			return "missing", nil
		}
		return info.Mode().String(), nil
	case "modes": // of the files that were published last, in the order in which they were replaced
		var has []string
		for _, path := range p.last.Files {
			has = append(has, filepath.Base(path)+" "+stat(path).Mode().String())
		}
		return strings.Join(has, ", "), nil
	case "group":
		return strconv.Itoa(files.GroupOf(stat(path))), nil
	case "cat":
		return readFile(p.cfg.Dir, name), nil
	case "keep":
		for _, name := range args {
			p.kept[name] = readFile(p.cfg.Dir, name)
		}
	case "kept":
		for _, name := range args {
			require.Equal(p.t, p.kept[name], readFile(p.cfg.Dir, name), name)
		}
	case "changed":
		for _, name := range args {
			require.NotEqual(p.t, p.kept[name], readFile(p.cfg.Dir, name), name)
		}
	case "hold":
		for _, name := range args {
			p.held[name] = stat(filepath.Join(p.cfg.Dir, name))
		}
	case "held": // which files are those that they were, and were not written to
		names := slices.DeleteFunc(slices.Sorted(maps.Keys(p.held)), func(name string) bool {
			info := stat(filepath.Join(p.cfg.Dir, name))
			return !os.SameFile(p.held[name], info) || !info.ModTime().Equal(p.held[name].ModTime())
		})
		return cmp.Or(strings.Join(names, " "), "none"), nil
	case "list":
		p.listed = listing(p.t, p.cfg.Dir)
	case "listed": // is what there was
		require.Equal(p.t, p.listed, listing(p.t, p.cfg.Dir))
	case "names":
		var has []string
		for name, what := range listing(p.t, p.cfg.Dir) {
			has = append(has, name+" "+what)
		}
		slices.Sort(has)
		return strings.Join(has, ", "), nil
	case "visible":
		names := slices.DeleteFunc(slices.Sorted(maps.Keys(listing(p.t, p.cfg.Dir))), func(name string) bool {
			return name == dataLink || name == noteName || generationName.MatchString(name)
		})
		return cmp.Or(strings.Join(names, " "), "none"), nil
	case "closed":
		requireClosed(p.t, p.cfg.Dir, DefaultFileMode, "")
	case "clean":
		requireNothingLeft(p.t, listing(p.t, p.cfg.Dir), "")

	case "clock":
		p.cfg.Now = func() time.Time { return p.now }
	case "pass":
		p.now = p.now.Add(fixture.Must(time.ParseDuration(name)))
	case "due":
		if due := p.volumes[""].OldDue(); !due.IsZero() {
			return due.Sub(p.now).String(), nil
		}
		return "never", nil
	case "resolve": // ..data, as a reader does
		p.reader = current(p.volumes[""])
		p.kept[p.reader] = readFile(filepath.Join(p.cfg.Dir, p.reader), "keystore.pem")
	case "read":
		data, err := os.ReadFile(filepath.Join(p.cfg.Dir, p.reader, "keystore.pem"))
		require.True(p.t, err != nil || string(data) == p.kept[p.reader])
		return map[bool]string{true: "whole", false: "gone"}[err == nil], nil
	case "generations": // by their numbers, with * the one that is current; they are in the order of their names
		var numbers []string
		for _, generation := range generations(p.t, p.volumes[""]) {
			if !slices.Contains(p.seen, generation) {
				p.seen = append(p.seen, generation)
			}
			number := fmt.Sprint(slices.Index(p.seen, generation) + 1)
			if generation == current(p.volumes[""]) {
				number += "*"
			}
			numbers = append(numbers, number)
		}
		return strings.Join(numbers, " "), nil

	case "open":
		v, err := open(p.cfg, func(op, path string) error {
			if p.step == nil {
				return nil
			}
			return p.step(op, path)
		})
		p.volumes[name] = v
		return "", err
	case "fail": // each step of a kind, or any; or from the first one after a commit
		fails := name == "any"
		p.step = func(op, path string) error {
			if base := filepath.Base(path); !fails && op != name {
				fails = name == "committed" && op == files.OpRename && (base == commitDir || base == dataLink)
				return nil
			}
			if second == "kill" {
				panic(kill{})
			}
			return map[string]error{"EIO": syscall.EIO, "EACCES": syscall.EACCES}[second]
		}
	case "work":
		p.step = nil
	case "log": // what it has said since
		_, text, _ := strings.Cut(p.log.String(), "level=")
		p.log.Reset()
		return text, nil
	case "inspect": // as a process does that changes nothing
		b, err := Read(p.cfg)
		if err == nil && len(b.Note) > 0 {
			return "a set with a note", nil
		}
		return "a set without a note", err
	case "look": // likewise, and as one that has started
		_, err := Read(p.cfg)
		_, current := mustOpen(p.t, p.cfg).Current()
		require.ErrorAs(p.t, current, new(*MismatchError))
		if current.Error() != err.Error() {
			err = fmt.Errorf("%w; then %w", err, current)
		}
		return "", err
	case "correct": // modes and groups, as a process does that has started
		corrected, err := reopened(p.t, p.cfg).CorrectModes()
		return cmp.Or(strings.Join(corrected, " "), "none"), err
	case "current":
		requireCurrent(p.t, p.cfg, p.bundle(name))
	case "learn": // what is there, as a process that has started does
		p.volumes[""] = reopened(p.t, p.cfg)
	case "trust": // one more
		b := p.bundle(name)
		b.Trusted = append(b.Trusted, newCA().Root)
		p.bundles[name] = b
	case "note":
		b := p.bundle(name)
		b.Note = nil
		if second != "" {
			b.Note = []byte(second)
		}
		p.bundles[name] = b
	case "publish", "restore":
		v, err := p.volumes[second], error(nil)
		if verb == "restore" {
			p.last, err = p.volumes[""].Restore()
		} else if wasKilled(func() { p.last, err = v.Publish(p.bundle(name)) }) {
			return "killed", nil
		} else if err == nil {
			p.numbers[name] = p.last.Number
		}
		return map[bool]string{true: "changed", false: "unchanged"}[p.last.Changed], err
	case "differences":
		return strings.Join(p.last.Differences, ", "), nil
	case "files":
		return fmt.Sprint(len(p.volumes[""].Files())), nil
	case "adopt": // any bundle, or not the one that is named
		b := p.volumes[""].Adopt(func(b Bundle) bool { return name == "" || !b.equal(p.bundle(name)) })
		for name, known := range p.bundles {
			if b != nil && b.equal(known) {
				return name, nil
			}
		}
		require.Nil(p.t, b)
		return "nothing", nil
	case "pending":
		return fmt.Sprint(p.volumes[name].Pending()), nil
	case "notified":
		number, known := p.numbers[name]
		if !known { // the last publication is meant
			number = p.last.Number
		}
		return "", p.volumes[""].MarkNotified(number)
	case "mark":
		var err error
		p.last.Number, err = p.volumes[""].MarkPending()
		return "", err
	case "writable":
		return "", p.volumes[""].Writable()
	case "in-the-way":
		err := InTheWay(p.cfg)
		require.True(p.t, err == nil || errors.Is(err, syscall.EISDIR), err)
		return "", err
	default:
		p.t.Fatalf("unknown command %q", verb)
	}
	return "", nil
}

// TestVolume_scripts plays what happens to a volume, in either layout. What stands under titles that begin with "before
// each" and "after each" is played around each other script of its file, for each such beginning.
func TestVolume_scripts(t *testing.T) {
	for _, file := range []string{"volume.txt", "mismatches.txt", "restorations.txt"} {
		scripts := golden.Read(t, "scripts/"+file)
		before := []string{""}
		for title, text := range scripts {
			if strings.HasPrefix(title, "before each") {
				before = append(before, text)
				delete(scripts, title)
			}
		}
		after := scripts["after each"]
		delete(scripts, "after each")
		for title, script := range scripts {
			t.Run(title, func(t *testing.T) {
				for _, before := range before[min(1, len(before)-1):] {
					eachLayout(t, func(t *testing.T, layout string) {
						lines := strings.Split(before+"\n"+script+"\n"+after, "\n")
						newPlayer(t, newConfig(t, layout, TypePEM)).play(lines...)
					})
				}
			})
		}
	}
}

func TestVolume_scripts_haveAllFormats(t *testing.T) {
	scripts := golden.Read(t, "scripts/volume.txt")
	for _, format := range Formats() {
		assert.Contains(t, scripts, "the files of "+format.Name+", in the order in which they are replaced")
	}
}

// notePath is where the note of what is published in a layout stands.
func notePath(cfg Config) string {
	if cfg.Layout == LayoutSymlink {
		return filepath.Join(cfg.Dir, dataLink, noteName)
	}
	return filepath.Join(cfg.Dir, noteName)
}
