package pkcs12

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// twoPasswords is a file whose keys have another password than the rest.
func twoPasswords(t *testing.T, contents Contents) []byte {
	t.Helper()
	own, other := encoder{passphrase{text: password}, ProfileModern}, encoder{passphrase{text: "another"}, ProfileModern}
	var safe cryptobyte.Builder
	safe.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		other.addKeys(b, contents.Keys)
		own.addCertificates(b, contents.Certificates)
	})
	return reassemble(t, 3, func(b *cryptobyte.Builder) {
		addDataInfo(b, safe.BytesOrPanic())
		own.addMAC(b, safe.BytesOrPanic())
	})
}

func TestAppend_leavesKeysOfAnotherPasswordAlone(t *testing.T) {
	contents := sample(t)
	before := twoPasswords(t, contents)
	added := Certificate{Certificate: contents.Certificates[1].Certificate, FriendlyName: "added", Trusted: true}

	after, err := Append(before, password, []Certificate{added}, nil)

	require.NoError(t, err)
	p, err := parsePFX(before)
	require.NoError(t, err)
	assert.True(t, bytes.Contains(after, p.parts[0].raw), "the part with the keys is as it was")
	closed, err := DecodeClosed(after, password)
	require.NoError(t, err)
	assert.Equal(t, append(contents.Certificates, added), closed.Certificates)
	open, err := Decode(after, password)
	require.NoError(t, err)
	require.Len(t, open.Unreadable, len(contents.Keys))
	require.ErrorIs(t, open.Unreadable[0], ErrPassword)
}

func TestAppend_marksWhatItIsToldTo(t *testing.T) {
	contents := sample(t)
	loose := contents.Certificates[1]
	require.False(t, loose.Trusted)
	data, err := Encode(contents, password, ProfileLegacy)
	require.NoError(t, err)

	after, err := Append(data, password, nil, []Certificate{{Certificate: loose.Certificate, FriendlyName: "marked"}})

	require.NoError(t, err)
	profile, err := ProfileOf(after)
	require.NoError(t, err)
	assert.Equal(t, ProfileLegacy, profile)
	got, err := Decode(after, password)
	require.NoError(t, err)
	loose.Trusted, loose.FriendlyName = true, "marked"
	assert.Equal(t, loose, got.Certificates[1])
	assert.Equal(t, contents.Certificates[0], got.Certificates[0])
	assert.Equal(t, contents.Certificates[2], got.Certificates[2])
}

func TestAppend_wrongPassword_changesNothing(t *testing.T) {
	data := encoded(t, ProfileModern)
	_, err := Append(data, "another", nil, nil)
	require.ErrorIs(t, err, ErrPassword)
}

// An unencrypted file stays one, also when it has no certificate yet.
func TestAppend_clearFileStaysClear(t *testing.T) {
	empty := reassemble(t, 3, func(b *cryptobyte.Builder) { addDataInfo(b, []byte{0x30, 0}) })
	cert := sample(t).Certificates[1].Certificate
	after, err := Append(empty, "", []Certificate{{Certificate: cert, FriendlyName: "a", Trusted: true}}, nil)
	require.NoError(t, err)
	for _, password := range []string{"", "anything"} {
		got, err := Decode(after, password)
		require.NoError(t, err)
		assert.Equal(t, []Certificate{{Certificate: cert, FriendlyName: "a", Trusted: true}}, got.Certificates)
	}
}
