package token

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxDepth is how deep objects and lists may be nested; those of a token are 3 deep.
const maxDepth = 8

// readObject reads a JSON object of at most so many values, its members' included. A name that
// occurs twice in an object is an error, and so is one that differs from another in case alone:
// readers disagree about which of them counts. Numbers keep their text. Errors show nothing of it.
func readObject(data []byte, most int) (map[string]any, error) {
	if !utf8.Valid(data) {
		return nil, errors.New("is not UTF-8")
	}
	r := objectReader{decoder: json.NewDecoder(bytes.NewReader(data)), left: most}
	r.decoder.UseNumber()
	value, err := r.read(0)
	if _, ok := errors.AsType[*json.SyntaxError](err); ok || err == io.EOF || err == io.ErrUnexpectedEOF {
		return nil, errors.New("is not JSON")
	}
	if err != nil {
		return nil, err
	}
	if _, err := r.decoder.Token(); err != io.EOF {
		return nil, errors.New("is not JSON: there is more after its end")
	}
	object, ok := value.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("is %s, want an object", kind(value))
	}
	return object, nil
}

// objectReader reads values, and ends early where there are too many of them.
type objectReader struct {
	decoder *json.Decoder
	left    int // values that may still come
}

func (r *objectReader) read(depth int) (any, error) {
	start, err := r.decoder.Token()
	if err != nil {
		return nil, err
	}
	if r.left--; r.left < 0 || depth > maxDepth {
		return nil, errors.New("has too many values")
	}
	switch start {
	case json.Delim('{'):
		return r.readMembers(depth)
	case json.Delim('['):
		list := []any{}
		for r.decoder.More() {
			value, err := r.read(depth + 1)
			if err != nil {
				return nil, err
			}
			list = append(list, value)
		}
		_, err = r.decoder.Token()
		return list, err
	}
	return start, nil
}

func (r *objectReader) readMembers(depth int) (any, error) {
	object, folded := map[string]any{}, map[string]bool{}
	for r.decoder.More() {
		token, err := r.decoder.Token()
		if err != nil {
			return nil, err
		}
		name, ok := token.(string)
		if !ok {
			return nil, errors.New("is not JSON")
		}
		alike := strings.Map(fold, name)
		if folded[alike] {
			return nil, errors.New("has two members of the same name")
		}
		folded[alike] = true
		if object[name], err = r.read(depth + 1); err != nil {
			return nil, err
		}
	}
	_, err := r.decoder.Token()
	return object, err
}

// fold returns the same for all characters that differ in case alone, as encoding/json sees them.
func fold(r rune) rune {
	for {
		next := unicode.SimpleFold(r)
		if next <= r {
			return next
		}
		r = next
	}
}

// kind says what a value is.
func kind(value any) string {
	switch value.(type) {
	case nil:
		return "null"
	case bool:
		return "true or false"
	case json.Number:
		return "a number"
	case string:
		return "a text"
	case []any:
		return "a list"
	default:
		return "an object"
	}
}
