// Package architecture holds the direction of the imports: data flows one way, so imports do too.
package architecture

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const module = "github.com/certfetcher/certfetcher/"

const stages = "keygen client internal/verify output internal/notify"

func TestPackages_linkNothingThatIsNotTheirs(t *testing.T) {
	for _, row := range []struct{ packages, never, because string }{
		{stages, stages + " internal/config", "stages exchange standard types, internal/config fills their " +
			"settings, internal/enroll knows their order"},
		{"cmd/certfetcher", "internal/certservice internal/devca test/", "it has no issuing code"},
		{"cmd/certservice", "internal/devca test/", "the development CA is for nobody's production"},
		{"client", "internal/certservice", "client and server share no code"},
		{"internal/certservice", "client", "client and server share no code"},
	} {
		for _, pkg := range strings.Fields(row.packages) {
			out, err := exec.Command("go", "list", "-deps", module+pkg).CombinedOutput()
			require.NoError(t, err, string(out))
			for dep := range strings.FieldsSeq(string(out)) {
				name, ours := strings.CutPrefix(dep, module)
				for _, never := range strings.Fields(row.never) {
					is := name == never || strings.HasSuffix(never, "/") && strings.HasPrefix(name, never)
					assert.False(t, ours && name != pkg && is, "%s links %s: %s", pkg, name, row.because)
				}
			}
		}
	}
}
