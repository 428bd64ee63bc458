package pages

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

var update = flag.Bool("update", false, "rewrite the page and the JSON of the API")

func TestDescription_pageAndJSON_areMadeFromTheDocument(t *testing.T) {
	d := fixture.Must(readDocument())
	for name, want := range map[string][]byte{"api.html": fixture.Must(d.page()), "openapi.json": fixture.Must(d.json())} {
		path := filepath.Join(directory, name)
		if *update {
			require.NoError(t, os.WriteFile(path, want, 0o644))
		}
		assert.Equal(t, string(want), string(fixture.Must(os.ReadFile(path))), "%s is out of date: make docs", name)
	}
}
