package output

import (
	"errors"
	"fmt"
)

// trialFile is a file of the size that a publication is expected to write.
type trialFile struct {
	name string
	size int
}

// trialFiles are the files that the next publication writes: as large as those of the one before
// and an eighth more, or else as large as those of a usual one.
func (v *Volume) trialFiles() []trialFile {
	var files []trialFile
	for _, f := range filesOf(v.cfg.Types) {
		size := usualSize(f)
		if v.published != nil {
			if data := v.published.data(f.Name); data != nil {
				size = len(data) + len(data)/8
			}
		}
		files = append(files, trialFile{f.Name, size})
	}
	files = append(files, trialFile{noteName, 1 << 10})
	if v.cfg.Layout == LayoutInplace {
		files = append(files, trialFile{listName, 1 << 10})
	}
	return files
}

// What the files of a usual set have in any format, in bytes; Base64 makes four bytes of three.
const (
	usualCertificates = 3 * 1500 * 3 / 2             // a chain of three, or as many to trust
	usualKeystore     = usualCertificates + 2400*3/2 // with an RSA-4096 key
)

func usualSize(f File) int {
	switch f.holds {
	case password:
		return passwordLength
	case privateKey:
		return usualKeystore
	}
	return usualCertificates
}

// Writable finds out by trying whether a publication could start, has room, and can make the links
// of the symlink layout, so that no certificate is requested in vain: it writes as many files, of
// the same sizes, as the next publication will. Old generations stay, but are removed where there
// is no other room. Nothing is made durable. The error is of type *FileError.
func (v *Volume) Writable() error {
	return v.doAlone(func(d disk) error {
		if err := v.settle(d); err != nil {
			return err
		}
		if err := v.inTheWay(d); err != nil {
			return err
		}
		err := v.makingRoom(d, func() error { return v.tryFiles(d) })
		if removed := d.remove(stageDir); err == nil {
			err = removed
		}
		return err
	})
}

// tryFiles writes what the next publication will, and leaves it to the caller to remove it.
func (v *Volume) tryFiles(d disk) error {
	if err := d.MakeDir(stageDir, 0o700); err != nil {
		return err
	}
	stage, err := d.Open(stageDir)
	if err != nil {
		return err
	}
	defer stage.Close()
	files := v.trialFiles()
	total, largest := 0, 0
	for _, file := range files {
		total, largest = total+file.size, max(largest, file.size)
	}
	zeros := make([]byte, largest)
	for _, file := range files {
		f, err := stage.WriteFile(file.name, zeros[:file.size], 0o600)
		if f != nil {
			f.Close()
		}
		if err != nil {
			return v.wanting(err, len(files), total)
		}
	}
	if v.cfg.Layout != LayoutSymlink {
		return nil
	}
	// Not every file system has links: SMB and some FUSE
	// ones have none. Each takes an inode as files do.
	links := []string{dataTemporary}
	for _, f := range filesOf(v.cfg.Types) {
		if !d.linksTo(f.Name, throughData+f.Name) {
			links = append(links, linkTemporary+f.Name)
		}
	}
	for i, name := range links {
		var err error
		if i == 0 {
			err = stage.ReplaceLink("trial", name, linkTemporary)
		} else { // what one rename tells, the others would tell again
			err = stage.MakeLink("trial", name)
		}
		if err != nil {
			return v.wanting(err, len(files)+len(links), total)
		}
	}
	return nil
}

// wanting adds to an error of a full volume how much a publication needs.
func (v *Volume) wanting(err error, files, bytes int) error {
	failed, ok := errors.AsType[*FileError](err)
	if ok && isNoRoom(err) {
		failed.Hint += fmt.Sprintf("; a publication writes %d files of %d KiB in all, beside those that are there",
			files, (bytes+1023)/1024)
	}
	return err
}
