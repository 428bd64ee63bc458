package pki

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestOf_foreignText_isOneShortPrintableLine(t *testing.T) {
	assert.Equal(t, "a b c", OneLine(" a\r\n\tb\x00\u202e c\xff ", 5))
	assert.Equal(t, "äöü…", OneLine("äöüß", 3))
	assert.Equal(t, "", OneLine("\n", 3))
}
