package pkcs12

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The keys of this file have another password than the rest.
func TestAppend_leavesKeysOfAnotherPasswordAlone(t *testing.T) {
	contents := sample()
	own, keys := writer(password, ProfileModern), writer("another", ProfileModern)
	before := own.file(keys.keys(contents), own.certificates(contents))
	added := Certificate{Certificate: contents.Certificates[1].Certificate, FriendlyName: "added", Trusted: true}

	after := must(Append(before, password, []Certificate{added}, nil))
	p := must(parsePFX(before))
	assert.Contains(t, string(after), string(p.parts[0].raw), "the part with the keys has changed")
	closed := must(DecodeClosed(after, password))
	assert.Equal(t, append(contents.Certificates, added), closed.Certificates)
	open := must(Decode(after, password))
	require.Len(t, open.Unreadable, 1)
	require.ErrorIs(t, open.Unreadable[0].Err, ErrPassword)
	for _, data := range [][]byte{before, own.file(dataInfo(sequence(certificateBags(contents))))} {
		_, err := Append(data, "another", nil, nil)
		require.ErrorIs(t, err, ErrPassword)
	}
}

func TestAppend_marksTheCertificatesInTheList(t *testing.T) {
	contents := sample()
	clear := clearFile(certificateBags(contents))
	for profile, data := range map[Profile][]byte{ProfileLegacy: encoded(ProfileLegacy), "": clear} {
		mark := []Certificate{{Certificate: contents.Certificates[1].Certificate, FriendlyName: "marked"}}

		after := must(Append(data, password, nil, mark))
		if profile != "" {
			found := must(ProfileOf(after))
			assert.Equal(t, profile, found)
		}
		got := must(Decode(after, password))
		want := sample().Certificates
		want[1].Trusted, want[1].FriendlyName = true, "marked"
		assert.Equal(t, want, got.Certificates)
	}
}

// An unencrypted file stays one, also when it has no certificate yet.
func TestAppend_clearFileStaysClear(t *testing.T) {
	added := []Certificate{{Certificate: sample().Certificates[1].Certificate, FriendlyName: "a", Trusted: true}}
	for _, empty := range [][]byte{file(dataInfo(sequence())), clearFile(nil)} {
		after := must(Append(empty, "", added, nil))
		for _, password := range []string{"", "anything"} {
			got := must(Decode(after, password))
			assert.Equal(t, added, got.Certificates)
		}
	}
}
