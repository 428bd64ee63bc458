package startup

import (
	"io"
	"log"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestImport_turnsTheStandardLoggerOff(t *testing.T) {
	assert.Equal(t, io.Discard, log.Writer())
}
