package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestCertservice_attack_withoutACertificateDoesNotFillTheLog(t *testing.T) {
	authority := newCA(t)
	p := start(t, files(t, authority, goodServers))
	trusted, stranger := clientOf(t, authority, true), clientOf(t, authority, false)
	const requests = 200
	send := func(url, text string) {
		_, address, _ := strings.Cut(url, "://")
		conn := must(net.Dial("tcp", address))
		_, _ = io.WriteString(conn, text)
		conn.Close()
	}
	for range requests {
		status, _ := p.get(stranger, p.https+"/v1/certificate/RA")
		require.Equal(t, http.StatusUnauthorized, status)
		send(p.https, "")
		send(p.https, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		send(p.url, "nonsense\r\n\r\n")
		send(p.url, "GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n")
		send(p.url, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	}
	for range 50 {
		status, _ := p.get(trusted, p.https+"/nowhere")
		require.Equal(t, http.StatusNotFound, status)
	}
	assert.NoError(t, p.terminate())

	p.mu.Lock()
	defer p.mu.Unlock()
	lines, summaries := map[string]int{}, []map[string]any{}
	for _, line := range p.log {
		key := fmt.Sprint(line["msg"], " ", line["outcome"])
		if lines[key]++; line["addresses"] != nil {
			summaries = append(summaries, line)
		}
	}
	t.Log(lines)
	assert.Equal(t, 5, lines["request unauthorized"])
	assert.Equal(t, 50, lines["request not_found"], "a trusted client's are all there")
	require.Len(t, summaries, 1, "at the end, if no minute was over: %v", lines)
	assert.EqualValues(t, requests-5, summaries[0]["requests"])
	assert.EqualValues(t, 2*requests-5, summaries[0]["handshakes"])
	assert.EqualValues(t, 1, summaries[0]["addresses"])
	assert.Equal(t, "WARN", summaries[0]["level"])
	assert.Less(t, len(p.log), 90)
}
