package cmp

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// rawServer is a TCP server that answers as its script says. It tells how many connections it took.
type rawServer struct {
	url         string
	connections atomic.Int32
}

// serveRaw has serve handle each connection, of which it gets the number, counted from 1.
func serveRaw(t *testing.T, serve func(number int, connection net.Conn)) *rawServer {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	s := &rawServer{url: "http://" + listener.Addr().String() + "/pkix/"}
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = connection.Close() }()
				serve(int(s.connections.Add(1)), connection)
			}()
		}
	}()
	return s
}

// exchangeOn answers one request on a connection by a handler, and says keep-alive. False: there was none to read.
func exchangeOn(connection net.Conn, reader *bufio.Reader, handler http.Handler) bool {
	request, err := http.ReadRequest(reader)
	if err != nil {
		return false
	}
	response, err := inMemory{handler}.RoundTrip(request)
	if err != nil {
		return false
	}
	body, _ := io.ReadAll(response.Body)
	response.Body = io.NopCloser(strings.NewReader(string(body)))
	response.ContentLength = int64(len(body))
	return response.Write(connection) == nil
}

// enrolOver enrols over real connections of a transport of its own.
func enrolOver(t *testing.T, p *testPKI, url string) error {
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	c, _ := testClient(t, nil, func(c *Config) { c.URL, c.HTTPClient = url, &http.Client{Transport: transport} })
	_, err := c.Initialize(t.Context(), Request{CSR: p.csr, Key: p.key})
	return err
}

// Some servers close the connection after an answer without saying so. The certConf that follows at once is then written
// to a connection that is as good as closed.
func TestClient_serverClosesAfterItsAnswer_isAskedOnceMoreOnANewConnection(t *testing.T) {
	for name, end := range map[string]func(net.Conn){
		"closed":                     func(net.Conn) {},
		"reset":                      func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0) },
		"closed in the next request": func(c net.Conn) { _, _ = c.Read(make([]byte, 1)) },
		"closed after the next request was read": func(c net.Conn) {
			_, _ = http.ReadRequest(bufio.NewReader(c))
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPKI(t)
			r := &responder{t: t, testPKI: p}
			server := serveRaw(t, func(_ int, connection net.Conn) {
				exchangeOn(connection, bufio.NewReader(connection), r)
				end(connection)
			})

			require.NoError(t, enrolOver(t, p, server.url))

			assert.Equal(t, []BodyType{BodyIR, BodyCertConf}, r.kinds())
			assert.EqualValues(t, 2, server.connections.Load())
		})
	}
}

func TestHostile_serverThatCloses_isNotAskedForEver(t *testing.T) {
	for name, row := range map[string]struct {
		serve       func(r *responder, number int, connection net.Conn)
		connections int32
	}{
		"a new connection is not tried again": {func(_ *responder, _ int, c net.Conn) {
			_, _ = http.ReadRequest(bufio.NewReader(c))
		}, 1},
		"once more and no more": {func(r *responder, number int, c net.Conn) {
			reader := bufio.NewReader(c)
			if number == 1 {
				exchangeOn(c, reader, r)
			}
			_, _ = http.ReadRequest(reader)
		}, 2},
		"not after the first byte of an answer": {func(r *responder, number int, c net.Conn) {
			reader := bufio.NewReader(c)
			exchangeOn(c, reader, r)
			_, _ = http.ReadRequest(reader)
			_, _ = io.WriteString(c, "HTTP/1.1 2")
		}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPKI(t)
			r := &responder{t: t, testPKI: p}
			server := serveRaw(t, func(number int, connection net.Conn) { row.serve(r, number, connection) })

			err := enrolOver(t, p, server.url)

			var transport *TransportError
			require.ErrorAs(t, err, &transport)
			assert.False(t, transport.Timeout)
			assert.Equal(t, row.connections, server.connections.Load())
		})
	}
}

// What a CA says on an error page is what its operator needs.
func TestClient_errorPage_isQuotedInOneLine(t *testing.T) {
	page := readRecorded(t, "unknown-alias.response.html")
	err := over(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html;charset=UTF-8")
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write(page)
	}, nil)

	assert.EqualError(t, err, `sending CMP request: HTTP status 404: answer is no CMP message: `+
		`has media type "text/html;charset=UTF-8", want "application/pkixcmp"; it says "CMP alias 'nosuch' does not exist"`)
	var transport *TransportError
	require.True(t, errors.As(err, &transport))
	assert.Contains(t, transport.URL, "http://127.0.0.1:")
}

func TestClient_URLInErrors_hasNoPassword(t *testing.T) {
	err := over(t, http.NotFound, func(c *Config) { c.URL = strings.Replace(c.URL, "http://", "http://user:"+testSecret+"@", 1) })
	var transport *TransportError
	require.True(t, errors.As(err, &transport))
	assert.Contains(t, transport.URL, "http://user:xxxxx@127.0.0.1:")
	assert.NotContains(t, err.Error(), testSecret)
}

func TestPlainText_isWhatAReaderSees(t *testing.T) {
	for page, want := range map[string]string{
		"":                          "",
		"no such alias\r\n\x1b[31m": "no such alias [31m",
		"<html><head><title>Error</title></head><body>it</body>":                       "it",
		"<html><head><title>Only a title</title></head></html>":                        "Only a title",
		"<HTML><BODY class='x'><h1>HTTP 500</h1><p>a &amp; b &lt;c":                    "HTTP 500 a & b <c",
		"<style>p {color: red}</style>a<script>if (a < b) {}</script>b<!-- c > d -->e": "a b e",
		"<body>cut off in a <a href='":                                                 "cut off in a",
		"<!DOCTYPE html><p>x":                                                          "x",
		strings.Repeat("é<b>", 10_000):                                                 strings.TrimSpace(strings.Repeat("é ", 150)) + " …",
	} {
		assert.Equal(t, want, plainText(page), page[:min(len(page), 60)])
	}
}

func FuzzPlainText(f *testing.F) {
	f.Add("<html><head><title>Error</title></head><body>CMP alias 'nosuch' does not exist</body></html>")
	f.Add("<script>a</script><style>b</style><!-- c -->&amp;<")
	f.Fuzz(func(t *testing.T, page string) {
		text := plainText(page)
		assert.LessOrEqual(t, len([]rune(text)), maxWordsShown+1)
		assert.NotContains(t, text, "\n")
	})
}
