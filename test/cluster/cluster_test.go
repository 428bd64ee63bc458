package cluster

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/certfetcher/certfetcher/test/fixture"
)

func TestCluster(t *testing.T) {
	fixture.RunScripts(t, testscript.Params{Dir: fixture.Scripts(t, "testdata/*.txtar")})
}
