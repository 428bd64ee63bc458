package pkcs12

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestToDER_rewritesBER(t *testing.T) {
	for name, test := range map[string]struct{ ber, want []byte }{
		"DER stays":                       {[]byte{0x30, 3, 2, 1, 5}, []byte{0x30, 3, 2, 1, 5}},
		"a length that is not said":       {[]byte{0x30, 0x80, 2, 1, 5, 0, 0}, []byte{0x30, 3, 2, 1, 5}},
		"a length of too many octets":     {[]byte{0x30, 0x83, 0, 0, 3, 2, 1, 5}, []byte{0x30, 3, 2, 1, 5}},
		"segments":                        {[]byte{0x24, 0x80, 4, 1, 'a', 4, 2, 'b', 'c', 0, 0}, []byte{4, 3, 'a', 'b', 'c'}},
		"segments of segments":            {[]byte{0x24, 9, 0x24, 0x80, 4, 1, 'a', 0, 0, 4, 0}, []byte{4, 1, 'a'}},
		"no segment":                      {[]byte{0x24, 0x80, 0, 0}, []byte{4, 0}},
		"contents of OCTET STRINGs stay":  {[]byte{4, 4, 0x30, 0x80, 0, 0}, []byte{4, 4, 0x30, 0x80, 0, 0}},
		"a constructed context tag stays": {[]byte{0xa0, 0x80, 4, 1, 'a', 0, 0}, []byte{0xa0, 3, 4, 1, 'a'}},
	} {
		t.Run(name, func(t *testing.T) {
			der, err := toDER(test.ber)
			require.NoError(t, err)
			assert.Equal(t, test.want, der)
		})
	}
}

func TestToDER_isLongWhereTheContentsAre(t *testing.T) {
	for _, size := range []int{127, 128, 255, 256, 65535, 65536} {
		content := bytes.Repeat([]byte{'x'}, size)
		ber := append(append(appendHeader([]byte{0x24, 0x80}, 4, size), content...), 0, 0)
		der, err := toDER(ber)
		require.NoError(t, err)
		assert.Equal(t, append(appendHeader(nil, 4, size), content...), der)
	}
}

func TestToDER_refuses(t *testing.T) {
	for name, test := range map[string]struct {
		ber  []byte
		want string
	}{
		"nothing":                       {nil, "is cut short or has a damaged length"},
		"an element without its end":    {[]byte{0x30, 0x80, 2, 1, 5}, "is cut short or has a damaged length"},
		"a primitive without a length":  {[]byte{4, 0x80, 0, 0}, "has a primitive element (ASN.1 tag 0x04) without a length"},
		"a segment of another kind":     {[]byte{0x24, 0x80, 2, 1, 5, 0, 0}, "has a segment with ASN.1 tag 0x02 in an OCTET STRING, want 0x04"},
		"bytes after the end":           {[]byte{0x30, 0, 1, 2}, "has 2 bytes after its end"},
		"a child longer than its frame": {[]byte{0x30, 3, 4, 9, 1}, "is cut short or has a damaged length"},
		"a tag of several octets":       {[]byte{0x3f, 1, 0}, "has ASN.1 tag 0x3f, which PKCS#12 does not use"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := toDER(test.ber)
			require.EqualError(t, err, test.want)
		})
	}
}

// A file of strangers' making must cost no more than its size.
func TestToDER_isBounded(t *testing.T) {
	deep := bytes.Repeat([]byte{0x30, 0x80}, 10_000)
	segments := append([]byte{0x24, 0x80}, bytes.Repeat([]byte{4, 1, 'a'}, 1_000_000)...)
	for name, test := range map[string]struct {
		ber  []byte
		want string
	}{
		"10,000 levels":        {deep, "has elements nested more than 64 deep"},
		"segmented levels":     {bytes.Repeat([]byte{0x24, 0x80}, 10_000), "has elements nested more than 64 deep"},
		"a length of 1 GiB":    {[]byte{0x30, 0x84, 0x40, 0, 0, 0, 2, 1, 5}, "is cut short or has a damaged length"},
		"a length of 2^1000":   {append([]byte{0x30, 0xfe}, bytes.Repeat([]byte{0xff}, 126)...), "is cut short or has a damaged length"},
		"a million segments":   {append(bytes.Clone(segments), 0, 0), ""},
		"segments with no end": {segments, "is cut short or has a damaged length"},
	} {
		t.Run(name, func(t *testing.T) {
			before := allocated()
			start := time.Now()
			_, err := toDER(test.ber)
			assert.Less(t, time.Since(start), 5*time.Second)
			assert.Less(t, allocated()-before, uint64(64<<20))
			if test.want == "" {
				require.NoError(t, err)
			} else {
				require.EqualError(t, err, test.want)
			}
		})
	}
}

func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// FuzzToDER: the result is DER that stays as it is, and never longer than what came.
func FuzzToDER(f *testing.F) {
	files, err := filepath.Glob("../../test/testdata/stores/*.p12")
	require.NoError(f, err)
	require.NotEmpty(f, files)
	for _, path := range files {
		data, err := os.ReadFile(path)
		require.NoError(f, err)
		f.Add(data)
	}
	f.Add([]byte{0x24, 9, 0x24, 0x80, 4, 1, 'a', 0, 0, 4, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		der, err := toDER(data)
		if err != nil {
			return
		}
		if len(der) > len(data)+maxBERDepth {
			t.Fatalf("%d bytes became %d", len(data), len(der))
		}
		again, err := toDER(der)
		if err != nil || !bytes.Equal(again, der) {
			t.Fatalf("the result is not DER: %v", err)
		}
	})
}
