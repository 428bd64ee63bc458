package keystore_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/test/golden"
)

// TestDetect reads testdata/detect.txt: how data begins, as a Go string, and the format or why there is none.
func TestDetect(t *testing.T) {
	for sentence, text := range golden.Read(t, "detect.txt") {
		t.Run(sentence, func(t *testing.T) {
			quoted, want, _ := strings.Cut(text, "\n")
			data, err := strconv.Unquote(quoted)
			require.NoError(t, err)
			format, err := keystore.Detect([]byte(data))
			if err == nil {
				assert.Equal(t, want, string(format))
				return
			}
			assert.EqualError(t, err, want)
			_, _, err = keystore.Decode([]byte(data), password)
			assert.EqualError(t, err, want)
		})
	}
}

func TestDecode_tooLarge_isRefused(t *testing.T) {
	data := append([]byte("\xfe\xed\xfe\xed"), make([]byte, keystore.MaxSize)...)
	_, _, err := keystore.Decode(data, password)
	assert.EqualError(t, err, "JKS store has 8388612 bytes, want at most 8388608")
}

func FuzzDetect(f *testing.F) {
	for _, text := range golden.Read(f, "detect.txt") {
		quoted, _, _ := strings.Cut(text, "\n")
		data, err := strconv.Unquote(quoted)
		require.NoError(f, err)
		f.Add([]byte(data))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		format, err := keystore.Detect(data)
		if (err == nil) != (format != "") {
			t.Fatalf("format %q, error %v", format, err)
		}
	})
}
