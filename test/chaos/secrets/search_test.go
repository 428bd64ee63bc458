package secrets

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// least is how many bytes of a secret have to be found for it to count: enough never to be met by chance.
const least = 8

// needles are the forms in which a secret may show, by the form's name. Whitespace and the line breaks of PEM, raw or
// as JSON escapes, are taken out of what is searched, so none has any.
func needles(secret []byte) map[string]string {
	if len(secret) > 32 {
		secret = secret[len(secret)/2 : len(secret)/2+32] // from the middle: the beginning of a key's DER is no secret
	}
	digits := hex.EncodeToString(secret)
	colons := strings.ReplaceAll(fmt.Sprintf("% x", secret), " ", ":")
	raw := string(secret)
	forms := map[string]string{"raw": squeeze(raw), "percent": url.QueryEscape(raw),
		"path": url.PathEscape(raw), "hex": digits, "upper case hex": strings.ToUpper(digits),
		"hex with colons": colons, "upper case hex with colons": strings.ToUpper(colons)}
	for name, encoding := range map[string]*base64.Encoding{
		"Base64": base64.RawStdEncoding, "Base64 URL": base64.RawURLEncoding} {
		for shift := range 3 {
			encoded := encoding.EncodeToString(append(make([]byte, shift), secret...))
			encoded = encoded[[]int{0, 2, 3}[shift] : len(encoded)-1] // what neighbours share is out
			forms[fmt.Sprintf("%s at %d", name, shift)] = encoded
			forms[fmt.Sprintf("%s at %d, percent-encoded", name, shift)] = url.QueryEscape(encoded)
		}
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
	long := bytes.Repeat([]byte{0xfb, 0xff, 0x10, 0x20, 'a', 0xc3, 0x28, 0}, 20)
	for i := range long {
		long[i] ^= byte(i)
	}
	wrap := regexp.MustCompile(`.{10}`)
	for name, secret := range map[string][]byte{"short": []byte("pass+word/of=a store"), "long": long} {
		all := map[string][]byte{name: secret}
		assert.Empty(t, find([]byte("nothing of "+strings.Repeat("interest ", 50)), all))
		encoded := base64.StdEncoding.EncodeToString(secret)
		spaced := fmt.Sprintf("% x", secret)
		colons := strings.ReplaceAll(spaced, " ", ":")
		digits := hex.EncodeToString(secret)
		planted := []string{string(secret), digits, strings.ToUpper(digits), spaced, colons,
			strings.ToUpper(colons), url.QueryEscape(string(secret)), url.QueryEscape(encoded),
			wrap.ReplaceAllString(encoded, "$0\n"), wrap.ReplaceAllString(encoded, `$0\n`)}
		for shift := range 3 {
			text := slices.Concat(make([]byte, shift+3), secret, []byte("behind"))
			planted = append(planted, base64.StdEncoding.EncodeToString(text))
			planted = append(planted, base64.URLEncoding.EncodeToString(text))
		}
		for _, text := range planted {
			assert.NotEmpty(t, find([]byte("before"+text+"behind"), all), "%s as %s", name, text)
		}
	}
}
