package output

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

const (
	commitDir = "..commit" // a stage that is committed
	listName  = "..files"  // in it, the names of the whole set, one on a line
	commitSet = commitDir + "/" + listName

	listLimit = 64 << 10 // of the list, in bytes: there are a dozen names
)

// publishInplace replaces the files of the set that differ. Numbers as in the body:
//
//  1. Make ..stage, and in it the changed files (created closed, then their group, then their mode)
//     and the list of the whole set.
//  2. Sync the files and ..stage.
//  3. Rename ..stage to ..commit and sync the volume. From here on the new set holds.
//  4. to 7. are those of finishInplace.
//
// Killed before step 3, the old set stands and settle removes the rest; killed after, settle does
// what is left. committed is called when the new set holds, whatever fails later.
func (v *Volume) publishInplace(d disk, s *set, changed []*content, committed func()) error {
	// 1, 2
	list := &content{name: listName, data: []byte(strings.Join(s.names(), "\n")), mode: 0o600}
	if err := v.stage(d, append(changed, list), 0o700); err != nil {
		return err
	}
	// 3
	if err := d.Rename(stageDir, commitDir); err != nil {
		return err
	}
	committed()
	if err := d.SyncDir("."); err != nil {
		return err
	}
	return v.finishInplace(d)
}

// finishInplace completes a committed publication, from wherever an earlier run was stopped:
//
//  4. Rename each file of ..commit to its place, in the order of the catalogue. One that is not in
//     ..commit is in its place already.
//  5. Remove the files and visible links that the set has not, and what is left of the symlink
//     layout.
//  6. Sync the volume: ..commit must not go before all this is durable.
//  7. Remove the list, then ..commit, and sync the volume.
func (v *Volume) finishInplace(d disk) error {
	list := d.readAtMost(commitSet, listLimit)
	if list.err != nil && !errors.Is(list.err, fs.ErrNotExist) {
		return v.dropCommit(d, fmt.Sprintf("%s %v", listName, list.err))
	}
	// The list goes last: without it nothing is left to do but to remove the directory.
	if list.err == nil {
		if err := v.putInPlace(d, strings.Split(string(list.data), "\n")); err != nil {
			return err
		}
		// 7
		if err := d.remove(commitSet); err != nil {
			return err
		}
	}
	if err := d.remove(commitDir); err != nil {
		return err
	}
	return d.SyncDir(".")
}

// dropCommit removes a ..commit that cannot be completed. What is in place is not the whole set
// then, and the next publication replaces it.
func (v *Volume) dropCommit(d disk, reason string) error {
	v.cfg.Log.Warn("removing what has the name of an interrupted publication but is not one: "+
		"find out which process puts it there", "path", d.Path(commitDir), "error", reason)
	err := d.remove(commitDir)
	if errors.Is(err, fs.ErrPermission) { // it is another user's; the directory above may be this one's
		err = d.moveAside(commitDir, reason)
	}
	return err
}

func (v *Volume) putInPlace(d disk, names []string) error {
	// 4
	for _, name := range names {
		if staged := commitDir + "/" + name; ours(name) && d.IsRegular(staged) {
			if err := d.Rename(staged, name); err != nil {
				return err
			}
		}
	}
	// 5
	if _, err := v.removeStale(d, names); err != nil {
		return err
	}
	if err := d.remove(dataLink); err != nil {
		return err
	}
	if err := v.removeOld(d, "", ""); err != nil {
		return err
	}
	// 6
	return d.SyncDir(".")
}
