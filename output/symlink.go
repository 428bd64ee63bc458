package output

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// DataLink is the link, at the top of a volume of the
// symlink layout, to the generation that readers see.
const DataLink = "..data"

// Names at the top of a volume. Two dots keep them out of
// the way of files and of most readers' globs.
const (
	dataLink      = DataLink
	dataTemporary = "..data_tmp"   // becomes dataLink
	linkTemporary = "..link_tmp"   // becomes a file's visible link
	stageDir      = "..stage"      // what is not committed yet
	throughData   = dataLink + "/" // how targets of visible links begin
)

// staleLogged bounds what is logged of removed files: others
// may have made any number of links into ..data.
const staleLogged = 20

// publishSymlink replaces the whole set by one rename. Numbers as in the body:
//
//  1. Make ..stage, and in it every file: created closed, then its group, then its mode.
//  2. Sync the files and ..stage.
//  3. Rename ..stage to its timestamp, ..YYYY_MM_DD_hh_mm_ss.NNN.
//  4. Sync the volume: the link of the next step must never be durable before what it points to.
//  5. Make the link ..data_tmp to the timestamp and rename it to ..data. From here on the new set
//     holds.
//  6. Sync the volume, unless it was empty: nothing may be taken away before the new set is
//     durable.
//  7. Make the visible links that are missing, NAME -> ..data/NAME, also over regular files; remove
//     those that point to nothing any more, and files of certfetcher's that the set has not.
//  8. Sync the volume when step 7 changed something.
//  9. Remove the old generations that no reader uses any more, see removeOld.
//
// Killed before step 5, the old set stands and settle removes the rest; killed after, settle does
// what is left. before is what the volume held; committed is called when the new set holds,
// whatever fails later.
func (v *Volume) publishSymlink(d disk, s *set, before snapshot, committed func()) error {
	previous := d.generation()
	touched := false
	if v.published != nil {
		differing, _ := v.differing(v.published, before)
		touched = len(differing) > 0
	}
	// 1, 2
	if err := v.stage(d, s.staged(), DirectoryMode(v.cfg.FileMode)); err != nil {
		return err
	}
	// 3
	generation := nextGeneration(previous, v.cfg.Now())
	if err := d.Rename(stageDir, generation); err != nil {
		return err
	}
	// 4
	if err := d.SyncDir("."); err != nil {
		return err
	}
	// 5
	if err := d.ReplaceLink(generation, dataLink, dataTemporary); err != nil {
		return err
	}
	committed()
	// 6
	if len(before.files) > 0 || before.generated {
		if err := d.SyncDir("."); err != nil {
			return err
		}
	}
	// 7, 8
	if _, err := v.linkVisible(d, generation); err != nil {
		return err
	}
	// 9
	if previous != "" {
		v.replaced[previous] = v.cfg.Now()
	}
	if !touched {
		previous = ""
	}
	return v.removeOld(d, generation, previous)
}

// linkVisible makes the names at the top of the volume those of the generation, and syncs when that
// changed something. corrected says what differed.
func (v *Volume) linkVisible(d disk, generation string) (corrected []string, err error) {
	// What another process put beside them stays where it is.
	files, err := d.list(generation, isPublished)
	if err != nil {
		return nil, err
	}
	for _, name := range files {
		if d.linksTo(name, throughData+name) {
			continue
		}
		difference := name + " is missing"
		if d.Exists(name) {
			difference = name + " is not the link that it should be"
		}
		if err := v.markPending(d); err != nil {
			return corrected, err
		}
		if err := d.ReplaceLink(throughData+name, name, linkTemporary); err != nil {
			return corrected, err
		}
		corrected = append(corrected, difference)
	}
	removed, err := v.removeStale(d, files)
	if removed {
		corrected = append(corrected, "a file of an earlier publication was there")
	}
	if err != nil || len(corrected) == 0 {
		return corrected, err
	}
	return corrected, d.SyncDir(".")
}

// removeStale removes what earlier publications left at the top of the volume: links into ..data,
// and files under the names of certfetcher's, that the set has not. Otherwise an old key would
// stay there after a change of the output type. Everything else on the volume belongs to others.
func (v *Volume) removeStale(d disk, current []string) (removed bool, err error) {
	names, err := d.list(".", func(name string) bool {
		return !slices.Contains(current, name) && d.isStale(name)
	})
	if err != nil {
		return false, err
	}
	for i, name := range names {
		if i < staleLogged {
			v.cfg.Log.Info("removing a file of an earlier publication", "path", d.Path(name))
		}
		if err := d.remove(name); err != nil {
			return removed, err
		}
		removed = true
	}
	return removed, nil
}

// isStale tells whether an entry is certfetcher's, given that the set has no such file.
func (d disk) isStale(name string) bool {
	if target, err := d.Root.Readlink(name); err == nil {
		return strings.HasPrefix(target, throughData)
	}
	return ours(name) && d.IsRegular(name)
}

func (d disk) linksTo(name, target string) bool {
	has, err := d.Root.Readlink(name)
	return err == nil && has == target
}

// Place is where a file of a volume, or of one that a kubelet made, has its content: behind the
// links of the symlink layout, or under its own name. No other link is followed.
func Place(root *os.Root, name string) (string, error) {
	target, err := root.Readlink(name)
	if err != nil {
		return name, nil // not a link; what else is wrong is met next
	}
	if target == throughData+name {
		generation, err := root.Readlink(dataLink)
		if err != nil {
			return "", err
		}
		if !strings.Contains(generation, "/") {
			return generation + "/" + name, nil
		}
		name, target = dataLink, generation
	}
	return "", fmt.Errorf("%s is a link to %q, which is not followed", name, target)
}
