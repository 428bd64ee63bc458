package doctor

import (
	"io/fs"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
)

// keyInfo is a key's owner and mode.
type keyInfo struct {
	fs.FileInfo
	uid  uint32
	mode fs.FileMode
}

func (k keyInfo) Mode() fs.FileMode { return k.mode }
func (k keyInfo) Sys() any          { return &syscall.Stat_t{Uid: k.uid} }

// The rules are those of PostgreSQL's server and client library.
func TestPostgreSQLRefuses_whatOthersThanItsOwnerMayRead(t *testing.T) {
	for _, row := range []struct {
		uid  uint32
		mode fs.FileMode
		want string
	}{
		{999, 0o600, ""},
		{999, 0o400, ""},
		{999, 0o640, "it has mode 0640, and where PostgreSQL owns the key, 0600 is the most"},
		{999, 0o604, "it has mode 0604, and where PostgreSQL owns the key, 0600 is the most"},
		{0, 0o640, ""},
		{0, 0o600, ""},
		{0, 0o660, "it has mode 0660, and where root owns the key, 0640 is the most"},
		{0, 0o644, "it has mode 0644, and where root owns the key, 0640 is the most"},
		{65532, 0o600, "it belongs to uid 65532, and not to uid 999 or root"},
		{65532, 0o640, "it belongs to uid 65532, and not to uid 999 or root"},
	} {
		assert.Equal(t, row.want, Reader{UID: 999, GID: 999}.postgreSQLRefuses(keyInfo{uid: row.uid, mode: row.mode}))
	}
	assert.Empty(t, Reader{UID: -1, GID: 999}.postgreSQLRefuses(keyInfo{uid: 65532, mode: 0o640}),
		"who it runs as is not known")
}
