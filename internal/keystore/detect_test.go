package keystore_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/test/golden"
)

// TestDetect reads testdata/detect.txt: how data begins, as a Go string, and the format or why there is none.
func TestDetect(t *testing.T) {
	for sentence, text := range golden.Read(t, "detect.txt") {
		t.Run(sentence, func(t *testing.T) {
			data, want := parseDetect(text)
			format, err := keystore.Detect(data)
			if err == nil {
				assert.Equal(t, want, string(format))
				return
			}
			assert.EqualError(t, err, want)
			_, _, err = keystore.Decode(data, password)
			assert.EqualError(t, err, want)
		})
	}
}

func parseDetect(text string) (data []byte, want string) {
	quoted, want, _ := strings.Cut(text, "\n")
	return []byte(must(strconv.Unquote(quoted))), want
}

func TestDecode_tooLarge_isRefused(t *testing.T) {
	data := append([]byte("\xfe\xed\xfe\xed"), make([]byte, keystore.MaxSize)...)
	_, _, err := keystore.Decode(data, password)
	assert.EqualError(t, err, "JKS store has 8388612 bytes, want at most 8388608")
}

func FuzzDetect(f *testing.F) {
	for _, text := range golden.Read(f, "detect.txt") {
		data, _ := parseDetect(text)
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		format, err := keystore.Detect(data)
		assert.Equal(t, err == nil, format != "", "format %q, error %v", format, err)
	})
}
