package secrets

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// least is how many bytes of a secret have to be found for it to count: enough never to be met by chance.
const least = 8

// needles are the forms in which a secret may show, by the form's name. Whitespace and the line breaks of PEM, raw or
// as JSON escapes, are taken out of what is searched, so none has any.
func needles(secret []byte) map[string]string {
	forms := map[string]string{"raw": squeeze(string(secret)),
		"percent": url.QueryEscape(string(secret)), "path": url.PathEscape(string(secret))}
	if len(secret) > 32 {
		secret = secret[len(secret)/2 : len(secret)/2+32] // from the middle: the beginning of a key's DER is no secret
		forms = map[string]string{"raw": squeeze(string(secret)), "percent": url.QueryEscape(string(secret))}
	}
	digits := hex.EncodeToString(secret)
	var pairs []string
	for i := 0; i < len(digits); i += 2 {
		pairs = append(pairs, digits[i:i+2])
	}
	for separator, name := range map[string]string{"": "hex", ":": "hex with colons"} {
		forms[name] = strings.Join(pairs, separator)
		forms[name+", upper case"] = strings.ToUpper(forms[name])
	}
	for alphabet, name := range map[*base64.Encoding]string{base64.RawStdEncoding: "Base64",
		base64.RawURLEncoding: "Base64 URL"} {
		for shift := range 3 {
			encoded := alphabet.EncodeToString(append(make([]byte, shift), secret...))
			// Without the characters that the neighbours share.
			forms[fmt.Sprintf("%s at %d", name, shift)] = encoded[[]int{0, 2, 3}[shift] : len(encoded)-1]
		}
		forms[name+", percent-encoded"] = url.QueryEscape(base64.StdEncoding.EncodeToString(secret)[:len(secret)/3*4])
	}
	return forms
}

// squeeze takes out what wraps text: whitespace, and line breaks as JSON and Go quote them.
func squeeze(text string) string {
	text = strings.NewReplacer(`\r`, "", `\n`, "", `\t`, "").Replace(text)
	return strings.Join(strings.Fields(text), "")
}

// find returns the names of the secrets that an output holds, with the form.
func find(output []byte, secrets map[string][]byte) []string {
	squeezed := squeeze(string(output))
	var found []string
	for name, secret := range secrets {
		if len(secret) < least {
			panic("a secret too short to be searched: " + name)
		}
		if bytes.Contains(output, secret) {
			found = append(found, name+" as it is")
		}
		for form, needle := range needles(secret) {
			if needle != "" && strings.Contains(squeezed, needle) {
				found = append(found, name+" in "+form)
			}
		}
	}
	return found
}

// The search finds every form of a planted secret, and nothing where there is none.
func TestFind_findsEveryForm(t *testing.T) {
	short := []byte("pass+word/of=a store")
	long := bytes.Repeat([]byte{0xfb, 0xff, 0x10, 0x20, 'a', 0xc3, 0x28, 0}, 20)
	for i := range long {
		long[i] ^= byte(i)
	}
	for name, secret := range map[string][]byte{"short": short, "long": long} {
		all := map[string][]byte{name: secret}
		assert.Empty(t, find([]byte("nothing of "+strings.Repeat("interest ", 50)), all))
		wrapped := func(text, end string) string {
			var lines []string
			for ; len(text) > 10; text = text[10:] {
				lines = append(lines, text[:10])
			}
			return strings.Join(append(lines, text), end)
		}
		colons := strings.TrimSuffix(strings.ReplaceAll(fmt.Sprintf("% x", secret), " ", ":"), ":")
		planted := []string{
			string(secret), hex.EncodeToString(secret), strings.ToUpper(hex.EncodeToString(secret)),
			colons, strings.ToUpper(colons),
			fmt.Sprintf("% x", secret), url.QueryEscape(string(secret)),
			wrapped(base64.StdEncoding.EncodeToString(secret), "\n"),
			wrapped(base64.StdEncoding.EncodeToString(secret), `\n`),
		}
		for shift := range 3 {
			before := append(bytes.Repeat([]byte("x"), shift+3), secret...)
			planted = append(planted, base64.StdEncoding.EncodeToString(append(before, "behind"...)),
				base64.URLEncoding.EncodeToString(append(before, "behind"...)))
		}
		for _, text := range planted {
			assert.NotEmpty(t, find([]byte("before"+text+"behind"), all), "%s as %s", name, text)
		}
	}
}
