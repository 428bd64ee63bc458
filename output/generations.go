package output

import (
	"slices"
	"strings"
	"time"
)

const generationLayout = "..2006_01_02_15_04_05.000"

// isGeneration recognizes the name of a generation. After the dot, the kubelet's have about nine
// digits, certfetcher's three.
func isGeneration(name string) bool {
	second, fraction, found := strings.Cut(strings.TrimPrefix(name, ".."), ".")
	if !found || !strings.HasPrefix(name, "..") || fraction == "" || strings.Trim(fraction, "0123456789") != "" {
		return false
	}
	at, err := time.Parse("2006_01_02_15_04_05", second)
	return err == nil && at.Format("2006_01_02_15_04_05") == second // Parse takes a fraction as well
}

// Old generations are kept for readers that resolved ..data and have not read everything yet.
const (
	oldKept = 10 * time.Minute // after the next one was published
	oldMost = 8
)

// generation names the directory that ..data points to; empty when there is none.
func (d disk) generation() string {
	target, err := d.Root.Readlink(dataLink)
	if err != nil || !isGeneration(target) {
		return ""
	}
	if !d.IsDirectory(target) {
		return ""
	}
	return target
}

// nextGeneration is a name for a new generation, always greater than the one before, even when the
// clock was set back meanwhile: the order of the names is that of the publications.
func nextGeneration(previous string, now time.Time) string {
	name := now.UTC().Format(generationLayout)
	if name > previous {
		return name
	}
	before, err := time.Parse(generationLayout, previous)
	if err != nil {
		return name
	}
	return before.Add(time.Millisecond).Format(generationLayout)
}

// removeOld removes the generations that no reader uses any more: those that were replaced more
// than oldKept ago, all but the newest oldMost, and those that were never published. touched names
// one that another process changed: it may be damaged, or open to all, and is removed at once. One
// that cannot be removed is logged and stays: it may belong to another user, such as an init
// container's, and nothing depends on its absence.
func (v *Volume) removeOld(d disk, current, touched string) error {
	names, err := d.generations()
	if err != nil {
		return err
	}
	kept := v.keptOld(names, current)
	v.oldDue = time.Time{}
	for _, name := range names {
		replaced, keep := kept[name]
		if name == current {
			continue
		}
		if keep && name != touched {
			if due := replaced.Add(oldKept); v.oldDue.IsZero() || due.Before(v.oldDue) {
				v.oldDue = due
			}
			continue
		}
		delete(v.replaced, name)
		if err := d.remove(name); err != nil && !v.reported[name] {
			v.reported[name] = true
			v.cfg.Log.Warn("cannot remove an old generation of files with its private key", "error", err)
		}
	}
	return nil
}

// keptOld returns the old generations that are kept, with the time at which each was replaced: as
// this process remembers it, or else the one in the name of the next. Of a name that is far from
// now on either side, because the clock was set, nothing is known.
func (v *Volume) keptOld(names []string, current string) map[string]time.Time {
	now := v.cfg.Now()
	kept := map[string]time.Time{}
	next := current
	for _, name := range slices.Backward(names) {
		if name >= current || name < setAsideBefore || len(kept) == oldMost {
			continue
		}
		replaced, remembered := v.replaced[name]
		if !remembered {
			replaced, _ = time.Parse(generationLayout, next)
		}
		if now.Sub(replaced).Abs() <= oldKept {
			kept[name] = replaced
		}
		next = name
	}
	return kept
}

// OldDue is when the oldest of the generations that are kept for slow readers has to go, which
// Restore sees to; zero when none is kept.
func (v *Volume) OldDue() time.Time {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.oldDue
}

// generations lists them in the order of their publication.
func (d disk) generations() ([]string, error) {
	return d.list(".", func(name string) bool { return isGeneration(name) && d.IsDirectory(name) })
}
