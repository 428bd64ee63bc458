package files

import (
	"bytes"
	"encoding/binary"
	"unicode/utf16"
)

// Text returns a file's text as UTF-8 and without a byte order mark, which Windows editors and shells write; marked
// says that there was one. Text of which a mark says that it is UTF-16 is converted.
func Text(data []byte) (text []byte, marked bool) {
	if text, marked = bytes.CutPrefix(data, []byte("\xef\xbb\xbf")); marked {
		return text, true
	}
	switch {
	case len(data)%2 != 0:
		return data, false
	case bytes.HasPrefix(data, []byte{0xff, 0xfe}):
		return FromUTF16(data[2:], binary.LittleEndian), true
	case bytes.HasPrefix(data, []byte{0xfe, 0xff}):
		return FromUTF16(data[2:], binary.BigEndian), true
	}
	return data, false
}

// FromUTF16 is the text in UTF-8. Half a character at the end is dropped.
func FromUTF16(data []byte, order binary.ByteOrder) []byte {
	units := make([]uint16, len(data)/2)
	for i := range units {
		units[i] = order.Uint16(data[2*i:])
	}
	return []byte(string(utf16.Decode(units)))
}
