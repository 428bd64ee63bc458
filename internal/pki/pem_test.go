package pki

import (
	"bytes"
	"encoding/binary"
	"encoding/pem"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func utf16Of(text string, order binary.ByteOrder, mark bool) []byte {
	if mark {
		text = "\ufeff" + text
	}
	var out []byte
	for _, unit := range utf16.Encode([]rune(text)) {
		var two [2]byte
		order.PutUint16(two[:], unit)
		out = append(out, two[:]...)
	}
	return out
}

// pemForms are what becomes of a PEM file on its way through editors, shells, YAML and JSON.
func pemForms(text string) map[string][]byte {
	replace := func(old, with string) []byte { return []byte(strings.ReplaceAll(text, old, with)) }
	return map[string][]byte{
		"as it was":               []byte(text),
		"a byte order mark":       []byte("\ufeff" + text),
		"UTF-16LE with a mark":    utf16Of(text, binary.LittleEndian, true),
		"UTF-16BE with a mark":    utf16Of(text, binary.BigEndian, true),
		"UTF-16LE without a mark": utf16Of(text, binary.LittleEndian, false),
		"UTF-16BE without a mark": utf16Of(text, binary.BigEndian, false),
		"CR LF":                   replace("\n", "\r\n"),
		"CR":                      replace("\n", "\r"),
		"escaped LF":              replace("\n", `\n`),
		"escaped CR LF":           replace("\n", `\r\n`),
		"spaces for line ends":    replace("\n", " "),
		"no line ends":            replace("\n", ""),
		"indented":                []byte("    " + strings.ReplaceAll(text, "\n", "\n    ")),
		"tabs":                    []byte("\t" + strings.ReplaceAll(text, "\n", "\n\t")),
		"joined blocks":           replace("-----\n-----", "----------"),
		"empty lines":             replace("\n", "\n\n"),
		"text around the blocks":  []byte("subject=/CN=x\n" + text + "issuer=/CN=y\n"),
		"a JSON string":           []byte(`{"cert": "` + strings.ReplaceAll(text, "\n", `\n`) + `"}`),
	}
}

func TestBlocks_readsWhatWasDoneToAFile(t *testing.T) {
	text := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: bytes.Repeat([]byte("one"), 100)})) +
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("two")}))
	for name, data := range pemForms(text) {
		t.Run(name, func(t *testing.T) {
			assert.True(t, HasPEM(data))
			blocks, err := PEMBlocks(data)
			require.NoError(t, err)
			require.Len(t, blocks, 2)
			for i, want := range []PEMBlock{{Label: "CERTIFICATE", Bytes: bytes.Repeat([]byte("one"), 100)},
				{Label: "PRIVATE KEY", Bytes: []byte("two")}} {
				require.NoError(t, blocks[i].Err)
				want.Line = blocks[i].Line
				assert.Equal(t, want, blocks[i])
			}
		})
	}
}

func TestBlocks_headersOfOldKeys(t *testing.T) {
	text := "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: " +
		"DES-EDE3-CBC,00\n\nb25l\n-----END RSA PRIVATE KEY-----\n"
	for name, data := range map[string]string{"LF": text, "CR LF": strings.ReplaceAll(text, "\n", "\r\n"),
		"CR": strings.ReplaceAll(text, "\n", "\r")} {
		t.Run(name, func(t *testing.T) {
			blocks, err := PEMBlocks([]byte(data))
			require.NoError(t, err)
			assert.Equal(t, []PEMBlock{{Label: "RSA PRIVATE KEY",
				Headers: "Proc-Type: 4,ENCRYPTED\nDEK-Info: DES-EDE3-CBC,00", Bytes: []byte("one"), Line: 1}}, blocks)
		})
	}
}

func TestBlocks_damageIsNamedAndHidesNoOther(t *testing.T) {
	const good = "-----BEGIN A-----\nb25l\n-----END A-----\n"
	const copyAgain = "copy the file again as it was made; in YAML use a block scalar (key: |) " +
		"and indent each line alike"
	for name, test := range map[string]struct{ damaged, want string }{
		"no END": {"-----BEGIN B-----\nb25l\n",
			`the PEM block "B" at line 4: it has no END line: the file was cut short, or lines are missing`},
		"another END": {"-----BEGIN B-----\nb25l\n-----END C-----\n",
			`the PEM block "B" at line 4: its END line has another label than its BEGIN line: ` +
				`lines are missing, or the file was edited`},
		"nothing inside": {"-----BEGIN B-----\n-----END B-----\n",
			`the PEM block "B" at line 4: it is empty, want Base64 between its BEGIN and END lines`},
		"a lost character": {"-----BEGIN B-----\nb25\n-----END B-----\n",
			`the PEM block "B" at line 4: its Base64 is incomplete: characters are missing; ` + copyAgain},
		"a foreign character": {"-----BEGIN B-----\nb2*l\n-----END B-----\n",
			`the PEM block "B" at line 4: it has a character that is not Base64 (number 3, U+002A); ` + copyAgain},
		"Base64 for URLs": {"-----BEGIN B-----\nb_5l\n-----END B-----\n",
			`the PEM block "B" at line 4: it is in Base64 for URLs, want standard Base64; ` + copyAgain},
		"another escape": {"-----BEGIN B-----\\tb25l\\t-----END B-----\n",
			`the PEM block "B" at line 4: it has backslashes: an escaped text was not unescaped; ` + copyAgain},
		"headers without an end": {"-----BEGIN B-----\nProc-Type: 4,ENCRYPTED\nb25l\n-----END B-----\n",
			`the PEM block "B" at line 4: it has header lines and no empty line after them: the ` +
				`line ends were lost, write the file again as it was made`},
	} {
		t.Run(name, func(t *testing.T) {
			blocks, err := PEMBlocks([]byte(good + test.damaged + good))
			require.NoError(t, err)
			require.Len(t, blocks, 3)
			assert.Equal(t, []byte("one"), blocks[0].Bytes)
			assert.Equal(t, []byte("one"), blocks[2].Bytes)
			require.Error(t, blocks[1].Err)
			assert.Nil(t, blocks[1].Bytes)
			assert.Equal(t, test.want, blocks[1].String()+": "+blocks[1].Err.Error())
		})
	}
}

func TestBlocks_isBounded(t *testing.T) {
	block := "-----BEGIN A-----\nb25l\n-----END A-----\n"
	for name, test := range map[string]struct {
		data string
		want string
	}{
		"100,000 blocks": {strings.Repeat(block, 100_000),
			"has more than 10000 PEM blocks, want fewer: is it one file?"},
		"100,000 begins": {strings.Repeat("-----BEGIN A-----", 100_000),
			"has more than 10000 PEM blocks, want fewer: is it one file?"},
		"100,000 damaged begins": {strings.Repeat("-----BEGIN ", 100_000),
			"has more than 10000 PEM blocks, want fewer: is it one file?"},
		"8 MiB in a block":          {"-----BEGIN A-----\n" + strings.Repeat("A", 8<<20) + "\n-----END A-----\n", ""},
		"8 MiB of spaces":           {"-----BEGIN A-----\n" + strings.Repeat(" ", 8<<20) + "\n-----END A-----\n", ""},
		"a block that never ends":   {"-----BEGIN A-----\n" + strings.Repeat("A", 8<<20), ""},
		"as many blocks as allowed": {strings.Repeat(block, MaxPEMBlocks), ""},
	} {
		t.Run(name, func(t *testing.T) {
			data := []byte(test.data)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			_, err := PEMBlocks(data)
			assert.Less(t, time.Since(start), 5*time.Second)
			runtime.ReadMemStats(&after)
			assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(64<<20))
			if test.want == "" {
				require.NoError(t, err)
			} else {
				require.EqualError(t, err, test.want)
			}
		})
	}
}

// A CA that the trust settings of OpenSSL reject must not become trusted.
func TestCertificates_trustSettings(t *testing.T) {
	text, err := os.ReadFile("../../test/testdata/pem/root-ca.pem")
	require.NoError(t, err)
	block, _ := pem.Decode(text)
	const serverAuth = "\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x01"
	const emailProtection = "\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x04"
	list := func(tag byte, oids string) string { return string(tag) + string(byte(len(oids))) + oids }
	settings := func(inside string) string { return "\x30" + string(byte(len(inside))) + inside }
	for name, test := range map[string]struct{ aux, want string }{
		"none":                {"", ""},
		"empty":               {settings(""), ""},
		"trusted for servers": {settings(list(0x30, serverAuth)), ""},
		"trusted for e-mail only": {settings(list(0x30, emailProtection)),
			"its trust settings (openssl x509 -trustout) do not trust it for TLS"},
		"rejected for servers": {settings("\xa0\x0a" + serverAuth),
			"its trust settings (openssl x509 -trustout) do not trust it for TLS"},
		"rejected for e-mail":       {settings("\xa0\x0a" + emailProtection), ""},
		"settings that are damaged": {"\x30\x05", "its trust settings cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			data := pem.EncodeToMemory(&pem.Block{Type: "TRUSTED CERTIFICATE",
				Bytes: append(bytes.Clone(block.Bytes), test.aux...)})
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
			assert.Equal(t, block.Bytes, certs[0].Raw)
		})
	}
}

// FuzzBlocks: what encoding/pem reads is read the same, but for its tolerance of text after a label.
func FuzzBlocks(f *testing.F) {
	files, err := filepath.Glob("../../test/testdata/stores/*.pem")
	require.NoError(f, err)
	require.NotEmpty(f, files)
	for _, path := range files {
		data, err := os.ReadFile(path)
		require.NoError(f, err)
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		blocks, err := PEMBlocks(data)
		if err != nil {
			return
		}
		for _, b := range blocks {
			if b.Err == nil && b.Headers == "" {
				again, _ := pem.Decode(pem.EncodeToMemory(&pem.Block{Type: b.Label, Bytes: b.Bytes}))
				if again != nil && !bytes.Equal(again.Bytes, b.Bytes) {
					t.Fatal("encoding/pem reads other bytes")
				}
			}
			if b.Err == nil && len(b.Bytes) == 0 {
				t.Fatal("a block without content counts as read")
			}
		}
		_, _, _ = PEMCertificates(data)
	})
}
