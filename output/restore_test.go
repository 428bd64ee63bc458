package output

import (
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A reader that watches one file must not be woken by another's repair.
func TestVolume_Restore_inplaceTouchesOnlyTheDamagedFile(t *testing.T) {
	_, v, _ := published(t, LayoutInplace, TypeP12, TypePEM)
	before := map[string]os.FileInfo{}
	for _, path := range v.Files() {
		before[path] = stat(path)
	}
	damaged := v.path("truststore.p12")
	require.NoError(t, os.Remove(damaged))
	mustRestore(t, v)
	for path, was := range before {
		assert.Equal(t, path != damaged, os.SameFile(was, stat(path)), path)
	}
}
