package oneline

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestOf_foreignText_isOneShortPrintableLine(t *testing.T) {
	assert.Equal(t, "a b c", Of(" a\r\n\tb\x00\u202e c\xff ", 5))
	assert.Equal(t, "äöü…", Of("äöüß", 3))
	assert.Equal(t, "", Of("\n", 3))
}
