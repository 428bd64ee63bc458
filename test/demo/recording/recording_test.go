package main

import (
	"encoding/xml"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

var bin string

func TestMain(m *testing.M) { fixture.RunTests(m, &bin) }

// shown is all text of a picture, without spaces, and without what every run has another value of.
func shown(t *testing.T, picture string) string {
	t.Helper()
	var text strings.Builder
	for decoder := xml.NewDecoder(strings.NewReader(picture)); ; {
		token, err := decoder.Token()
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		if data, ok := token.(xml.CharData); ok {
			text.WriteString(strings.Join(strings.Fields(string(data)), ""))
		}
	}
	changing := regexp.MustCompile(`SHA-256:[0-9A-F:]{95}|[0-9a-fA-F]{20,}|[0-9][0-9:.µmshT-]*Z?`)
	return changing.ReplaceAllString(text.String(), "#")
}

// The pictures in the documents show what the programs say today.
func TestPictures_areUpToDate(t *testing.T) {
	for name, commands := range sessions {
		picture, err := os.ReadFile("../../../docs/images/" + name + ".svg")
		require.NoError(t, err)
		steps, err := record(bin, t.TempDir(), commands)
		require.NoError(t, err)
		assert.Equal(t, shown(t, draw("", steps)), strings.TrimPrefix(shown(t, string(picture)), shown(t,
			"<a>"+title+"</a>")), "%s: make recording", name)
	}
}
