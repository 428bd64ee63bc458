package policy

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
)

// The titles say what a JSON schema sees of a fault, for test/manifests: "Value" begins those that it
// refuses as well, "Meaning" those that it lets pass, and "YAML" those that are not about values.
func TestParse_faults(t *testing.T) {
	golden.Play(t, "faults*.txt", func(t *testing.T, _, commands string) string {
		text := commands
		_, err := Parse([]byte(fixture.PolicyText(commands)))
		if err == nil {
			return text + "valid"
		}
		faults, ok := errors.AsType[Faults](err)
		require.True(t, ok)
		require.NotEmpty(t, faults)
		for _, fault := range faults {
			text += fault.Error() + "\n"
		}
		return text
	})
}

// Files of any size come to an end soon, whatever they are full of.
func TestParse_hugeFiles(t *testing.T) {
	start := fixture.PolicyText("> …\n")
	many := start + "    allow: {dns: [" + strings.Repeat("a.example.org, ", 1<<16)
	for _, row := range []struct{ text, fault string }{
		{strings.Repeat("- *x\n", 1<<16), "a text begins with *"},
		{strings.Repeat("[", 1<<20), "is not YAML"},
		{strings.Repeat("\x00", 1<<20), "U+0000"},
		{strings.Repeat("\xff", 1<<20), "not UTF-8"},
		{many + "x..y]}\n", "allow.dns[65536]"},
		{strings.Repeat("a", 1<<20), "want a mapping"},
		{"a: &a [x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n", "has an anchor"},
	} {
		_, err := Parse([]byte(row.text))
		assert.ErrorContains(t, err, row.fault)
	}
	_, err := Parse([]byte(many + "b.example.org]}\n"))
	assert.NoError(t, err)
}
