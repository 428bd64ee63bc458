package cmp

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// timed returns a message with a text for its messageTime.
func timed(t *testing.T, text string) []byte {
	m := &PKIMessage{Header: PKIHeader{PVNO: PVNO2, Sender: DirectoryName(nil), Recipient: DirectoryName(nil)}, Body: PKIBody{BodyPKIConf, PKIConfirmContent{}}}
	der, err := m.Marshal()
	require.NoError(t, err)
	parsed, err := ParsePKIMessage(der)
	require.NoError(t, err)
	header := wrap(0x30, append(bytes.Clone(parsed.RawHeader[2:]), wrap(explicit(0), wrap(0x18, []byte(text)))...))
	return wrap(0x30, append(header, parsed.RawBody...))
}

func TestParsePKIMessage_messageTimeWithOffset_isReadAndKept(t *testing.T) {
	at := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"20260504030201Z":       at,
		"20260504030201.5Z":     at.Add(time.Second / 2),
		"20260504050201+0200":   at,
		"20260503213201-0530":   at,
		"20260504030201+0000":   at,
		"20260504050201.5+0200": at.Add(time.Second / 2),
	} {
		der := timed(t, text)
		m, err := ParsePKIMessage(der)
		require.NoError(t, err, text)
		assert.True(t, want.Equal(m.Header.MessageTime), text)
		assert.Equal(t, time.UTC, m.Header.MessageTime.Location(), text)
		again, err := m.Marshal()
		require.NoError(t, err)
		assert.Equal(t, der, again, text)

		m.Header.MessageTime = at.Add(time.Hour) // another time is written in UTC
		again, err = m.Marshal()
		require.NoError(t, err)
		assert.Contains(t, string(again), "20260504040201Z", text)
	}
	for _, text := range []string{"20260504030201", "202605040302Z", "20260504030201+02", "20260504030201+02:00", "20260504030201-0000",
		"20260504030201+2500", "20260504030201.50+0200", "20260504030201,5+0200", "20260504030201z", "20261304030201+0000"} {
		_, err := ParsePKIMessage(timed(t, text))
		assert.ErrorContains(t, err, "messageTime is not a GeneralizedTime in UTC or with an offset", text)
	}
}

func TestClient_messageTimeWithOffset_isComparedAsATime(t *testing.T) {
	p := newPKI(t)
	for text, want := range map[string]string{
		"20260504050201+0200": "",
		"20260504030201+0200": "messageTime: 2026-05-04T01:02:01Z",
	} {
		r := &responder{t: t, testPKI: p}
		r.header = func(_ *PKIMessage, h *PKIHeader) {
			var err error
			h.MessageTime, err = time.Parse(offsetTimeLayout, text)
			require.NoError(t, err)
			h.messageTimeText = text
		}
		_, _, err := initialize(t, p, r, nil)
		if want == "" {
			assert.NoError(t, err)
			continue
		}
		assert.Equal(t, want, outline(err))
	}
}
