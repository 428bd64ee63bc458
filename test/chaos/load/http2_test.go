package load

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/chaos"
)

const http2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// frame is one of HTTP/2 (RFC 9113, section 4.1).
func frame(kind, flags byte, stream uint32, payload string) string {
	head := binary.BigEndian.AppendUint32(nil, uint32(len(payload))<<8|uint32(kind))
	return string(binary.BigEndian.AppendUint32(append(head, flags), stream)) + payload
}

// literal is a header field that is in no table (RFC 7541, section 6.2.2).
func literal(name, value string) string {
	text := func(s string) string {
		if len(s) < 127 {
			return string([]byte{byte(len(s))}) + s
		}
		return string(binary.AppendUvarint([]byte{127}, uint64(len(s)-127))) + s
	}
	return "\x00" + text(name) + text(value)
}

// stallStreams opens 250 streams with headers of 120 KB each, and grants no window for their answers. It works on a
// connection on which HTTP/2 was negotiated.
func stallStreams(ctx context.Context, conn net.Conn) {
	const settings, headers, continuation, windowSize, endStream, endHeaders = 4, 1, 9, 4, 1, 4
	noWindow := string([]byte{0, windowSize, 0, 0, 0, 0})
	if _, err := io.WriteString(conn, http2Preface+frame(settings, 0, 0, noWindow)); err != nil {
		return
	}
	go untilClosed(conn)
	for stream := uint32(1); stream < 500 && ctx.Err() == nil; stream += 2 {
		out := frame(headers, endStream, stream, literal(":method", "GET")+literal(":path", "/v1/certificate/RA")+
			literal(":scheme", "https")+literal(":authority", "127.0.0.1"))
		out += strings.Repeat(frame(continuation, 0, stream, literal("x-long", string(make([]byte, 15<<10)))), 8)
		if _, err := io.WriteString(conn, out+frame(continuation, endHeaders, stream, "")); err != nil {
			return
		}
	}
	rest(ctx, time.Minute)
}

// HTTP/2 with its floods (rapid reset, CONTINUATION, SETTINGS, PING, windows that stall) cannot be had.
func TestHTTP2_cannotBeNegotiated(t *testing.T) {
	s := start(t)
	for name, identity := range map[string]*tls.Config{"a stranger": {RootCAs: s.Roots()},
		"a client with a certificate": s.clientTLS()} {
		dial := func(protocols ...string) (*tls.Conn, error) {
			config := identity.Clone()
			config.NextProtos = protocols
			return tls.Dial("tcp", s.target, config)
		}
		_, err := dial("h2")
		assert.ErrorContains(t, err, "no application protocol", name)
		conn, err := dial("h2", "http/1.1")
		require.NoError(t, err, name)
		assert.Equal(t, "http/1.1", conn.ConnectionState().NegotiatedProtocol, name)
		conn.Close()
		// Without being asked whether it is spoken.
		conn, err = dial()
		require.NoError(t, err, name)
		_, err = io.WriteString(conn, http2Preface)
		require.NoError(t, err, name)
		line, _ := bufio.NewReader(conn).ReadString('\n')
		assert.Regexp(t, `^(HTTP/1.1 [45]\d\d .*)?$`, strings.TrimSpace(line), name)
		conn.Close()
	}
	chaos.Record(t, "")
}
