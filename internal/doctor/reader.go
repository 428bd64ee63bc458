package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/internal/notify"
	"github.com/certfetcher/certfetcher/output"
)

// Reader is whom the application's container runs as.
type Reader struct {
	UID, GID int // -1: not known
}

// ParseReader reads the numbers of a user and a group, as flags and APP_UID and APP_GID give them.
// It returns nil when both are empty.
func ParseReader(uid, gid string) (*Reader, error) {
	if uid == "" && gid == "" {
		return nil, nil
	}
	r := &Reader{UID: -1, GID: -1}
	for _, id := range []struct {
		name, text string
		number     *int
	}{{"uid", uid, &r.UID}, {"gid", gid, &r.GID}} {
		if id.text == "" {
			continue
		}
		number, err := strconv.ParseUint(id.text, 10, 31)
		if err != nil {
			return nil, fmt.Errorf("%s is %q, want a number", id.name, id.text)
		}
		*id.number = int(number)
	}
	return r, nil
}

func (r Reader) String() string {
	switch {
	case r.GID < 0:
		return fmt.Sprintf("uid %d", r.UID)
	case r.UID < 0:
		return fmt.Sprintf("gid %d", r.GID)
	}
	return fmt.Sprintf("uid %d, gid %d", r.UID, r.GID)
}

// Permissions, as bits of one digit of a mode.
const (
	toRead  = 4
	toEnter = 1
)

// may decides as the kernel does for a user without capabilities:
// the owner's bits, else those of the group, else those of others;
// the first that apply, and not the best. It does not know of ACLs.
func (r Reader) may(want uint32, info fs.FileInfo, moreGroups ...int) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return true
	}
	mode := uint32(info.Mode().Perm())
	switch {
	case r.UID == int(stat.Uid):
		mode >>= 6
	case r.GID == int(stat.Gid), slices.Contains(moreGroups, int(stat.Gid)):
		mode >>= 3
	}
	return mode&want == want
}

// barrier says what keeps the reader from a file, or "". A directory
// passed over is taken for open. Those above the volume's mount point
// are not looked at: the other container mounts the volume elsewhere.
func (r Reader) barrier(path, passedOver string, moreGroups ...int) (string, error) {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !r.may(toRead, info, moreGroups...) {
		return "may not read: " + statText(path, info), nil
	}
	device := deviceOf(info)
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		switch {
		case err != nil:
			return "", err
		case deviceOf(info) != device:
			return "", nil
		case dir != passedOver && !r.may(toEnter, info, moreGroups...):
			return "may not enter: " + statText(dir, info), nil
		case dir == filepath.Dir(dir):
			return "", nil
		}
	}
}

func deviceOf(info fs.FileInfo) uint64 {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(stat.Dev)
	}
	return 0
}

// reader checks whether the application can read what was written for trial, and what is published.
func (t *trial) reader() {
	if t.Reader == nil {
		t.skip(checkReader, "whom the application runs as is not said: give --uid and --gid, or APP_UID and APP_GID")
		return
	}
	passedOver := ""
	if t.made && t.Config.Output.Layout == output.LayoutInplace {
		// Files will stand in the volume's directory itself,
		// without one like the trial's above them.
		var err error
		if passedOver, err = filepath.EvalSymlinks(t.dir); err != nil {
			passedOver = t.dir
		}
	}
	paths := []string{t.secret, t.public}
	if t.published != nil {
		for _, file := range t.published.Files {
			paths = append(paths, filepath.Join(t.published.Dir, file.Name))
		}
	}
	for _, path := range paths {
		barrier, err := t.Reader.barrier(path, passedOver)
		switch {
		case errors.Is(err, fs.ErrNotExist): // a sidecar may replace files at any moment
		case err != nil:
			t.fail(enroll.StageFile, checkReader, fmt.Sprintf("%q cannot be looked at: %v", path, files.Reason(err)),
				"check the modes of its directories; "+whoAmI())
			return
		case barrier != "":
			t.shutOut(path, passedOver, barrier)
			return
		}
	}
	t.readable()
}

// readable reports that the reader can read, and whether it will want to, if it is PostgreSQL.
func (t *trial) readable() {
	found := fmt.Sprintf("%s can reach and read the files", t.Reader)
	info, err := os.Stat(t.secret)
	refusal := ""
	if err == nil && slices.Contains(t.Config.Output.Types, output.TypePEM) {
		refusal = t.Reader.postgreSQLRefuses(info)
	}
	const advice = "run certfetcher with PostgreSQL's runAsUser and OUTPUT_FILE_MODE=0600, " +
		"or as root with OUTPUT_GROUP of PostgreSQL's group and 0640"
	switch {
	case refusal == "":
		t.ok(checkReader, "%s", found)
	case notify.IsPostgreSQL(t.Config.Notify.Verify):
		t.fail(enroll.StageFile, checkReader, found+", but PostgreSQL refuses key.pem: "+refusal, advice)
	default:
		t.ok(checkReader, "%s; PostgreSQL alone would refuse key.pem: %s", found, refusal)
	}
}

// postgreSQLRefuses says why PostgreSQL and its client library do not take a key of this owner and
// mode, though they can read it; "" if they take it. They want to own it, with nothing for others,
// or root to own it, and then their group may read.
func (r Reader) postgreSQLRefuses(info fs.FileInfo) string {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || r.UID < 0 {
		return ""
	}
	mode := info.Mode().Perm()
	switch {
	case r.UID == int(stat.Uid) && mode&0o077 != 0:
		return fmt.Sprintf("it has mode %04o, and where PostgreSQL owns the key, 0600 is the most", mode)
	case r.UID == int(stat.Uid):
		return ""
	case stat.Uid != 0:
		return fmt.Sprintf("it belongs to uid %d, and not to uid %d or root", stat.Uid, r.UID)
	case mode&0o037 != 0:
		return fmt.Sprintf("it has mode %04o, and where root owns the key, 0640 is the most", mode)
	}
	return ""
}

// shutOut reports a reader whom something keeps from a file,
// unless what is not known of it may help.
func (t *trial) shutOut(path, passedOver, barrier string) {
	const advice = "run both containers with the same fsGroup or the same runAsUser, or set OUTPUT_GROUP to a " +
		"group of the application; and let OUTPUT_FILE_MODE give it the right to read"
	found := t.Reader.String() + " " + strings.NewReplacer( // the trial's files are gone by now
		strconv.Quote(t.secret), "a file with secrets", strconv.Quote(t.public),
		"a file of certificates", strconv.Quote(t.dir), "the directory of a set",
	).Replace(barrier)
	groups, _ := os.Getgroups() // none is the worst that can come of an error
	again, err := t.Reader.barrier(path, passedOver, groups...)
	switch {
	case t.Reader.UID == 0:
		t.warn(checkReader, found+"; root may with the capability DAC_OVERRIDE", advice)
	case err == nil && again == "":
		t.warn(checkReader,
			fmt.Sprintf("%s; it may if it has the supplementary groups %v of this container, as with fsGroup", found,
				groups), advice)
	default:
		t.fail(enroll.StageFile, checkReader, found, advice)
	}
}
