package policy

import (
	"bytes"
	_ "embed"
)

//go:embed schema.json
var schema []byte

// Schema returns the JSON schema (draft 2020-12) of policy files, for editors. It sees less than
// Parse does.
func Schema() []byte { return bytes.Clone(schema) }
