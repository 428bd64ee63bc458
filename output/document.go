package output

import (
	"fmt"
	"io"
	"strings"
)

// contents say what is in each file of the catalogue, for people.
var contents = map[string]string{
	"keystore.pass":         "the password of the keystore and of its key, without a line end",
	"truststore.pass":       "the password of the truststore, without a line end",
	"truststore.p12":        "the trusted certificates, marked as Java needs it",
	"truststore.jks":        "the trusted certificates",
	"truststore.pem":        "the trusted certificates, one after the other",
	"keystore.p12":          "private key and chain under `KEYSTORE_ALIAS`",
	"keystore.jks":          "private key and chain under `KEYSTORE_ALIAS`",
	"keystore-combined.pem": "`key.pem` and `keystore.pem` in one file, for readers that open one file only",
	"key.pem":               "the private key, PKCS#8 without a password",
	"keystore.pem":          "the chain, the certificate first, without the root",
}

// WriteFilesMarkdown writes a table of the files that each output type writes, in the order in which they are replaced.
func WriteFilesMarkdown(w io.Writer) error {
	var text strings.Builder
	text.WriteString("| file | `OUTPUT_TYPE` | content | mode |\n|---|---|---|---|\n")
	for _, f := range catalogue {
		mode := fmt.Sprintf("%04o", publicMode)
		if f.holds != certificates {
			mode = "`OUTPUT_FILE_MODE`"
		}
		fmt.Fprintf(&text, "| `%s` | %s | %s | %s |\n", f.name, strings.Join(f.types, ", "), contents[f.name], mode)
	}
	_, err := io.WriteString(w, text.String())
	return err
}
