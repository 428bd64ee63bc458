package load

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/chaos"
)

const http2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// frame is one of HTTP/2 (RFC 9113, section 4.1).
func frame(kind, flags byte, stream uint32, payload []byte) []byte {
	head := binary.BigEndian.AppendUint32(nil, uint32(len(payload))<<8|uint32(kind))
	head = append(head, flags)
	return append(binary.BigEndian.AppendUint32(head, stream), payload...)
}

// literal is a header field that is in no table (RFC 7541, section 6.2.2).
func literal(name, value string) []byte {
	text := func(s string) []byte {
		if len(s) < 127 {
			return append([]byte{byte(len(s))}, s...)
		}
		out := []byte{127}
		rest := len(s) - 127
		for ; rest >= 128; rest /= 128 {
			out = append(out, byte(rest%128+128))
		}
		return append(append(out, byte(rest)), s...)
	}
	return append(append([]byte{0}, text(name)...), text(value)...)
}

// stallStreams opens 250 streams with headers of 120 KB each, and grants no window for their answers. It works on a
// connection on which HTTP/2 was negotiated.
func stallStreams(ctx context.Context, conn net.Conn) {
	const settings, headers, continuation, windowSize, endStream, endHeaders = 4, 1, 9, 4, 1, 4
	noWindow := append(binary.BigEndian.AppendUint16(nil, windowSize), 0, 0, 0, 0)
	if _, err := conn.Write(append([]byte(http2Preface), frame(settings, 0, 0, noWindow)...)); err != nil {
		return
	}
	go untilClosed(conn)
	for stream := uint32(1); stream < 500 && ctx.Err() == nil; stream += 2 {
		block := append(literal(":method", "GET"), literal(":path", "/v1/certificate/RA")...)
		block = append(append(block, literal(":scheme", "https")...), literal(":authority", "127.0.0.1")...)
		out := frame(headers, endStream, stream, block)
		for range 8 {
			out = append(out, frame(continuation, 0, stream, literal("x-long", string(make([]byte, 15<<10))))...)
		}
		out = append(out, frame(continuation, endHeaders, stream, nil)...)
		if _, err := conn.Write(out); err != nil {
			return
		}
	}
	rest(ctx, time.Minute)
}

// HTTP/2 with its floods (rapid reset, CONTINUATION, SETTINGS, PING, windows that stall) cannot be had.
func TestHTTP2_cannotBeNegotiated(t *testing.T) {
	s := start(t)
	for name, row := range map[string]struct {
		offered []string
		config  *tls.Config
	}{
		"a stranger":                  {[]string{"h2"}, &tls.Config{RootCAs: s.Roots()}},
		"a client with a certificate": {[]string{"h2"}, s.clientTLS()},
		"with a choice":               {[]string{"h2", "http/1.1"}, s.clientTLS()},
		"a stranger with a choice":    {[]string{"h2", "http/1.1"}, &tls.Config{RootCAs: s.Roots()}},
	} {
		row.config.NextProtos = row.offered
		conn, err := tls.Dial("tcp", s.target, row.config)
		if len(row.offered) == 1 {
			assert.ErrorContains(t, err, "no application protocol", name)
			continue
		}
		require.NoError(t, err, name)
		assert.Equal(t, "http/1.1", conn.ConnectionState().NegotiatedProtocol, name)
		conn.Close()
	}
	// Without being asked whether it is spoken.
	for name, config := range map[string]*tls.Config{"a stranger": {RootCAs: s.Roots()},
		"a client with a certificate": s.clientTLS()} {
		conn, err := tls.Dial("tcp", s.target, config)
		require.NoError(t, err, name)
		_, err = io.WriteString(conn, http2Preface)
		require.NoError(t, err, name)
		line, _ := answered(conn)
		assert.Regexp(t, `^(HTTP/1.1 [45]\d\d .*)?$`, line, name)
		conn.Close()
	}
	chaos.Record(t, "", "HTTP/2 by ALPN, and its preface without being asked; with and without a client certificate",
		"cannot be negotiated; the preface is refused")
}
