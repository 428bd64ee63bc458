package certservice

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/internal/program"
)

// maxConfigBytes bounds cmpServers.json and each file of certificates that it names.
const maxConfigBytes = 1 << 20

// ServersFile is what a cmpServers.json says. An entry with a fault does not make the others useless.
type ServersFile struct {
	Servers  []Server // the entries without a fault
	Faults   Faults   // of the entries left out
	Warnings []string // what was read although it is not as it should be, each with its place
	leftOut  []string // names of the entries left out; "" where an entry has none that can be read
}

// LoadServers reads and validates cmpServers.json. Paths in it are relative to its directory. The error is about the
// file as a whole, and is Faults when the file could be read.
func LoadServers(path string) (ServersFile, error) {
	return loadServers(path, readBounded)
}

func loadServers(path string, readFile func(string) ([]byte, error)) (ServersFile, error) {
	data, err := readFile(path)
	if err != nil {
		return ServersFile{}, err
	}
	return parseServers(data, func(name string) ([]byte, error) {
		if !filepath.IsAbs(name) {
			name = filepath.Join(filepath.Dir(path), name)
		}
		return readFile(name)
	})
}

func readBounded(path string) ([]byte, error) {
	data, _, err := files.Read(path, maxConfigBytes)
	if err != nil {
		return nil, err
	}
	if len(data) > maxConfigBytes {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxConfigBytes)
	}
	return data, nil
}

// parseServers validates the text of a cmpServers.json; readFile gets the files it names. It walks the
// JSON itself, not into a struct, to tell all faults and not only the first, and never a secret's value.
func parseServers(data []byte, readFile func(string) ([]byte, error)) (ServersFile, error) {
	var file ServersFile
	data, marked := files.Text(data) // the ONAP server read marked files as well
	if marked {
		file.Warnings = append(file.Warnings, "the file begins with a byte order mark, which is ignored")
	}
	root, fault := parseJSON(data)
	if fault != "" {
		return file, Faults{fault}
	}
	object, ok := root.(map[string]any)
	if !ok {
		return file, Faults{fmt.Sprintf("the file holds %s, want an object with the key \"cmpv2Servers\"", kind(root))}
	}
	misspelt := unknownFields(object, rootFields)
	for _, m := range misspelt {
		file.Warnings = append(file.Warnings, m.text(""))
	}
	var faults Faults
	list, ok := object["cmpv2Servers"].([]any)
	switch value, present := object["cmpv2Servers"]; {
	case !present:
		faults.add("cmpv2Servers", "is missing%s, want a list of at least one server", misspelt.hint("cmpv2Servers"))
	case !ok:
		faults.add("cmpv2Servers", "is %s, want a list of at least one server", kind(value))
	case len(list) == 0:
		faults.add("cmpv2Servers", "is empty, want at least one server")
	}
	if len(faults) > 0 {
		return file, faults
	}
	placeOf := map[string]string{}
	for i, entry := range list {
		file.addEntry(fmt.Sprintf("cmpv2Servers[%d]", i), entry, placeOf, readFile)
	}
	if len(file.Servers) == 0 {
		return file, file.Faults
	}
	return file, nil
}

// addEntry parses one entry. placeOf has the places of the names so far; of two with one name the first counts.
func (f *ServersFile) addEntry(place string, entry any, placeOf map[string]string,
	readFile func(string) ([]byte, error)) {
	var faults Faults
	var server Server
	if fields, ok := entry.(map[string]any); ok {
		e := entryParser{place: place, fields: fields, faults: &faults, warnings: &f.Warnings, readFile: readFile}
		server = e.parse()
	} else {
		faults.add(place, "is %s, want an object", kind(entry))
	}
	if first, taken := placeOf[server.CAName]; taken {
		faults.add(place+".caName", "has %q, which is the name of %s already", server.CAName, first)
	} else if server.CAName != "" {
		placeOf[server.CAName] = place
	}
	if len(faults) > 0 {
		f.leaveOut(server.CAName, faults)
		return
	}
	server.place = place
	f.Servers = append(f.Servers, server)
}

func (f *ServersFile) leaveOut(caName string, faults Faults) {
	f.Faults = append(f.Faults, faults...)
	f.leftOut = append(f.leftOut, caName)
}

// rootFields are the fields of the file's outermost object.
var rootFields = []string{"cmpv2Servers"}

// misspelling is a field that has no effect, and the known one that it looks like.
type misspelling struct{ written, meant string }

func (m misspelling) text(place string) string {
	if place != "" {
		place += ": "
	}
	return fmt.Sprintf("%sthe field %q is not known and has no effect: did you mean %q?",
		place, bounded(m.written), m.meant)
}

type misspellings []misspelling

// hint follows the words that a field is missing.
func (all misspellings) hint(field string) string {
	for _, m := range all {
		if m.meant == field {
			return fmt.Sprintf(" (there is %q)", bounded(m.written))
		}
	}
	return ""
}

// unknownFields finds the fields that look like a known one. Others are left alone: files for other programs and
// other versions have them.
func unknownFields(object map[string]any, known []string) misspellings {
	var found misspellings
	for _, name := range slices.Sorted(maps.Keys(object)) {
		if slices.Contains(known, name) {
			continue
		}
		if meant, ok := program.Closest(name, known); ok {
			found = append(found, misspelling{name, meant})
		}
	}
	return found
}

// parseJSON reads a file that is JSON as a whole; numbers keep their text. A fault has its line and column.
func parseJSON(data []byte) (root any, fault string) {
	var all json.RawMessage
	if err := json.Unmarshal(data, &all); err != nil { // reads to the end before it says so
		return nil, jsonFault(data, err)
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	if err := decoder.Decode(&root); err != nil {
		return nil, jsonFault(data, err)
	}
	return root, ""
}

func kind(value any) string {
	switch value.(type) {
	case nil:
		return "null"
	case bool:
		return "true or false"
	case json.Number:
		return "a number"
	case string:
		return "a string"
	case []any:
		return "a list"
	default:
		return "an object"
	}
}
