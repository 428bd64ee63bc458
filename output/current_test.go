package output

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/files"
)

// harm does to a volume, or to its configuration, what a line of testdata/mismatches.txt says.
func harm(t *testing.T, cfg *Config, bundles map[string]Bundle, line string) {
	t.Helper()
	words := strings.Fields(line)
	verb, name, args := words[0], words[1], words[2:]
	path := filepath.Join(cfg.Dir, name)
	switch verb {
	case "remove":
		for _, name := range words[1:] {
			require.NoError(t, os.Remove(filepath.Join(cfg.Dir, name)))
		}
	case "mkdir":
		require.NoError(t, makeDir(path))
	case "link":
		require.NoError(t, makeLink(path))
	case "truncate":
		size, err := strconv.ParseInt(args[0], 10, 64)
		require.NoError(t, err)
		require.NoError(t, os.Truncate(path, size))
	case "write":
		writeFile(t, cfg.Dir, name, args[0])
	case "copy": // to the first name, from all others
		var data string
		for _, from := range args {
			data += readFile(t, cfg.Dir, from)
		}
		writeFile(t, cfg.Dir, name, data)
	case "foreign": // from a volume with that bundle and the same passwords
		from := *cfg
		from.Dir = filepath.Join(t.TempDir(), "other")
		from.KeystorePassword = readFile(t, cfg.Dir, keystorePass)
		from.TruststorePassword = readFile(t, cfg.Dir, truststorePass)
		mustPublish(t, mustOpen(t, from), bundles[name])
		writeFile(t, cfg.Dir, args[0], readFile(t, from.Dir, args[0]))
	case "set":
		switch field := reflect.ValueOf(cfg).Elem().FieldByName(name); field.Kind() {
		case reflect.Slice:
			field.Set(reflect.ValueOf(args))
		case reflect.Uint32:
			number, err := strconv.ParseUint(args[0], 8, 32)
			require.NoError(t, err)
			field.SetUint(number)
		default:
			field.SetString(args[0])
		}
	default:
		t.Fatalf("unknown verb %q", verb)
	}
}

func TestVolume_Current_saysWhatDiffers(t *testing.T) {
	b, other := newBundle(), newBundle()
	bundles := map[string]Bundle{
		"same": b, "other": other, "shorter-chain": {b.Key, b.Chain[:1], b.Trusted, nil},
		"other-trust": {b.Key, b.Chain, other.Chain[1:], nil},
	}
	rows := strings.TrimSpace(readFile(t, "testdata", "mismatches.txt"))
	for row := range strings.SplitSeq(rows, "\n\n") {
		lines := strings.Split(row, "\n")
		t.Run(lines[0], func(t *testing.T) {
			cfg := newConfig(t, LayoutInplace, TypeP12, TypeJKS, TypePEM)
			mustPublish(t, mustOpen(t, cfg), b)
			for _, line := range lines[1 : len(lines)-1] {
				harm(t, &cfg, bundles, line)
			}
			want := `"` + cfg.Dir + strings.TrimSpace(lines[len(lines)-1])

			_, err := Read(cfg)
			assert.EqualError(t, err, want)
			v := mustOpen(t, cfg)
			_, err = v.Current()
			assert.ErrorAs(t, err, new(*MismatchError))
			if lines[0] != "a file is a directory" { // that is moved aside
				assert.EqualError(t, err, want)
			}
			// Whatever it was, publishing repairs it.
			require.True(t, mustPublish(t, v, b).Changed)
			requireCurrent(t, cfg, b)
		})
	}
}

func TestVolume_Current_manyTrustedCertificatesKeepTheirOrder(t *testing.T) {
	for _, format := range FormatNames() {
		cfg, b := newConfig(t, LayoutSymlink, format), newBundle()
		for range 11 {
			b.Trusted = append(b.Trusted, newCA().Root)
		}
		mustPublish(t, mustOpen(t, cfg), b)
		requireCurrent(t, cfg, b)
	}
}

func TestRead_changesNothing(t *testing.T) {
	missing := newConfig(t, LayoutInplace, TypePEM)
	_, err := Read(missing)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoDirExists(t, missing.Dir)

	cfg, v, _ := published(t, LayoutInplace, TypePEM)
	v.step = func(op, path string) error {
		if op == files.OpRename && filepath.Base(path) == "key.pem" {
			panic(kill{})
		}
		return nil
	}
	require.True(t, wasKilled(func() { _, _ = v.Publish(newBundle()) }))
	before := listing(t, cfg.Dir)
	_, err = Read(cfg)
	require.EqualError(t, err, `"`+cfg.Dir+
		`/..commit" holds a publication that was interrupted, the next start completes it`)
	require.Equal(t, before, listing(t, cfg.Dir))

	cfg.NotePending = true
	require.True(t, mustOpen(t, cfg).Pending(), "what this process completes, its application has to be notified of")
}

func TestVolume_Publish_refusesWhatNoReaderCouldUse(t *testing.T) {
	b, other := newBundle(), newBundle()
	key, chain, trusted := b.Key, b.Chain, b.Trusted
	for want, bundle := range map[string]Bundle{
		"has no private key or no certificate, want both ":                {nil, chain, trusted, nil},
		"has no private key or no certificate, want both":                 {key, nil, trusted, nil},
		"the certificate holds another public key than the private key's": {key, other.Chain, trusted, nil},
		"has no trusted certificate, want at least one":                   {key, chain, nil, nil},
		"has a note of 65537 bytes, want at most 65536": {key, chain, trusted,
			make([]byte, NoteLimit+1)},
		"x509: unknown key type while marshaling PKCS#8: output.opaque": {opaque{key}, chain, trusted, nil},
	} {
		cfg := newConfig(t, LayoutSymlink, TypeP12)
		_, err := mustOpen(t, cfg).Publish(bundle)
		encoding, isEncoding := errors.AsType[*EncodeError](err)
		require.True(t, isEncoding)
		assert.Equal(t, "encoding keystore.p12: "+strings.TrimSpace(want), err.Error())
		assert.Equal(t, strings.Contains(want, "opaque"), encoding.Key, want)
		assert.Empty(t, listing(t, cfg.Dir))
	}
}
