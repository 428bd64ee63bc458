package inspect

import (
	"fmt"
	"os"
	"strings"

	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/internal/keystore"
)

const (
	dataLink    = "..data"
	throughData = dataLink + "/"
)

// directory is a volume to which others may write: nothing outside of it is read, and nothing waited for.
type directory struct {
	root *os.Root
	path string
}

// place is where the content of a name is: behind the links of the symlink layout, if there are any.
func (d directory) place(name string) (string, error) {
	target, err := d.root.Readlink(name)
	if err != nil {
		return name, nil // no link; what else is wrong is met next
	}
	if target == throughData+name {
		generation, err := d.root.Readlink(dataLink)
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

func (d directory) read(name string) ([]byte, error) {
	place, err := d.place(name)
	if err != nil {
		return nil, err
	}
	data, _, err := files.ReadIn(d.root, place, keystore.MaxSize) // one byte more is what Decode refuses
	return data, err
}

// state is another one when a file of ours was replaced.
func (d directory) state() string {
	var text strings.Builder
	for _, name := range storeNames {
		place, err := d.place(name)
		fmt.Fprint(&text, place, err)
		if info, err := d.root.Lstat(place); err == nil {
			fmt.Fprint(&text, info.Mode(), info.Size(), info.ModTime().UnixNano())
		}
	}
	return text.String()
}
