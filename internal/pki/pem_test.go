package pki

import (
	"bytes"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
)

// pemForms are what becomes of a PEM file on its way through editors, shells, YAML and JSON.
func pemForms(text string) map[string]string {
	forms := map[string]string{
		"as it was":              text,
		"a byte order mark":      "\ufeff" + text,
		"indented":               "    " + strings.ReplaceAll(text, "\n", "\n    "),
		"tabs":                   "\t" + strings.ReplaceAll(text, "\n", "\n\t"),
		"joined blocks":          strings.ReplaceAll(text, "-----\n-----", "----------"),
		"text around the blocks": "subject=/CN=x\n" + text + "issuer=/CN=y\n",
		"a JSON string":          `{"cert": "` + strings.ReplaceAll(text, "\n", `\n`) + `"}`,
	}
	for _, end := range []string{"\r\n", "\r", `\n`, `\r\n`, " ", "", "\n\n"} {
		forms[fmt.Sprintf("%q for line ends", end)] = strings.ReplaceAll(text, "\n", end)
	}
	for _, mark := range []string{"", "\ufeff"} {
		var little, big bytes.Buffer
		units := utf16.Encode([]rune(mark + text))
		_ = binary.Write(&little, binary.LittleEndian, units)
		_ = binary.Write(&big, binary.BigEndian, units)
		forms["UTF-16LE after "+mark], forms["UTF-16BE after "+mark] = little.String(), big.String()
	}
	return forms
}

func TestBlocks_readsWhatWasDoneToAFile(t *testing.T) {
	long := bytes.Repeat([]byte("one"), 100)
	text := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: long})) +
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("two")}))
	for name, data := range pemForms(text) {
		assert.True(t, HasPEM([]byte(data)), name)
		blocks, err := PEMBlocks([]byte(data))
		require.NoError(t, err, name)
		require.Len(t, blocks, 2, name)
		want := []PEMBlock{{Label: "CERTIFICATE", Bytes: long, Line: blocks[0].Line},
			{Label: "PRIVATE KEY", Bytes: []byte("two"), Line: blocks[1].Line}}
		assert.Equal(t, want, blocks, name)
	}
}

func TestBlocks_headersOfOldKeys(t *testing.T) {
	const headers = "Proc-Type: 4,ENCRYPTED\nDEK-Info: DES-EDE3-CBC,00"
	for _, end := range []string{"\n", "\r\n", "\r"} {
		blocks, err := PEMBlocks([]byte(strings.ReplaceAll(
			"-----BEGIN RSA PRIVATE KEY-----\n"+headers+"\n\nb25l\n-----END RSA PRIVATE KEY-----\n", "\n", end)))
		require.NoError(t, err)
		assert.Equal(t, []PEMBlock{{Label: "RSA PRIVATE KEY", Headers: headers, Bytes: []byte("one"), Line: 1}}, blocks)
	}
}

func TestBlocks_damageIsNamedAndHidesNoOther(t *testing.T) {
	const good = "-----BEGIN A-----\nb25l\n-----END A-----\n"
	for name, text := range golden.Read(t, "damage.txt") {
		t.Run(name, func(t *testing.T) {
			damaged, want, _ := strings.Cut(text, "\n")
			blocks, err := PEMBlocks([]byte(good + fixture.Must(strconv.Unquote(damaged)) + good))
			require.NoError(t, err)
			require.Len(t, blocks, 3)
			assert.Equal(t, [][]byte{[]byte("one"), nil, []byte("one")},
				[][]byte{blocks[0].Bytes, blocks[1].Bytes, blocks[2].Bytes})
			require.Error(t, blocks[1].Err)
			assert.Equal(t, want, blocks[1].String()+": "+blocks[1].Err.Error())
		})
	}
}

func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

func TestBlocks_isBounded(t *testing.T) {
	const block, tooMany = "-----BEGIN A-----\nb25l\n-----END A-----\n",
		"has more than 10000 PEM blocks, want fewer: is it one file?"
	for name, row := range map[string]struct{ data, want string }{
		"100,000 blocks":            {strings.Repeat(block, 100_000), tooMany},
		"100,000 begins":            {strings.Repeat("-----BEGIN A-----", 100_000), tooMany},
		"100,000 damaged begins":    {strings.Repeat("-----BEGIN ", 100_000), tooMany},
		"8 MiB in a block":          {"-----BEGIN A-----\n" + strings.Repeat("A", 8<<20) + "\n-----END A-----\n", ""},
		"8 MiB of spaces":           {"-----BEGIN A-----\n" + strings.Repeat(" ", 8<<20) + "\n-----END A-----\n", ""},
		"a block that never ends":   {"-----BEGIN A-----\n" + strings.Repeat("A", 8<<20), ""},
		"as many blocks as allowed": {strings.Repeat(block, MaxPEMBlocks), ""},
	} {
		t.Run(name, func(t *testing.T) {
			data := []byte(row.data)
			before, start := allocated(), time.Now()
			_, err := PEMBlocks(data)
			assert.Less(t, time.Since(start), 5*time.Second)
			assert.Less(t, allocated()-before, uint64(64<<20))
			assert.Equal(t, row.want, strings.TrimPrefix(fmt.Sprint(err), "<nil>"))
		})
	}
}

// A CA that the trust settings of OpenSSL reject must not become trusted.
func TestCertificates_trustSettings(t *testing.T) {
	der := readDER(t, "../../test/testdata/pem/root-ca.pem")
	const notForTLS = "its trust settings (openssl x509 -trustout) do not trust it for TLS"
	const serverAuth = "\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x01"
	const emailProtection = "\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x04"
	list := func(tag byte, oids string) string { return string(tag) + string(byte(len(oids))) + oids }
	settings := func(inside string) string { return "\x30" + string(byte(len(inside))) + inside }
	for name, test := range map[string]struct{ aux, want string }{
		"none":                      {"", ""},
		"empty":                     {settings(""), ""},
		"trusted for servers":       {settings(list(0x30, serverAuth)), ""},
		"trusted for e-mail only":   {settings(list(0x30, emailProtection)), notForTLS},
		"rejected for servers":      {settings("\xa0\x0a" + serverAuth), notForTLS},
		"rejected for e-mail":       {settings("\xa0\x0a" + emailProtection), ""},
		"settings that are damaged": {"\x30\x05", "its trust settings cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			data := pem.EncodeToMemory(&pem.Block{Type: "TRUSTED CERTIFICATE",
				Bytes: append(bytes.Clone(der), test.aux...)})
			certs, faults, err := PEMCertificates(data)
			require.NoError(t, err)
			if test.want != "" {
				require.Len(t, faults, 1)
				require.EqualError(t, faults[0], `the PEM block "TRUSTED CERTIFICATE" at line 1: `+test.want)
				assert.Empty(t, certs)
				return
			}
			require.Empty(t, faults)
			require.Len(t, certs, 1)
			assert.Equal(t, der, certs[0].Raw)
		})
	}
}

// FuzzBlocks: what encoding/pem reads is read the same, but for its tolerance of text after a label.
func FuzzBlocks(f *testing.F) {
	files := fixture.Must(filepath.Glob("../../test/testdata/stores/*.pem"))
	require.NotEmpty(f, files)
	for _, path := range files {
		f.Add(fixture.Must(os.ReadFile(path)))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		blocks, err := PEMBlocks(data)
		if err != nil {
			return
		}
		for _, b := range blocks {
			if b.Err == nil && b.Headers == "" {
				again, _ := pem.Decode(pem.EncodeToMemory(&pem.Block{Type: b.Label, Bytes: b.Bytes}))
				if again != nil {
					require.Equal(t, again.Bytes, b.Bytes, "encoding/pem reads other bytes")
				}
			}
			require.True(t, b.Err != nil || len(b.Bytes) > 0, "a block without content counts as read")
		}
		_, _, _ = PEMCertificates(data)
	})
}
