package load

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"encoding/gob"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// order is what an attacker is to do. It is a process of its own at the lowest priority: attackers stand for other
// machines, and share two processors with certservice and with the clients here. Their connections come from the
// addresses 127.0.9.x.
type order struct {
	Name             string // of its attacks
	Connections      int    // in all
	Target, Identity string // a host:port, and a directory; none: without a certificate
	Plain            bool   // without TLS
	Attacks          []attack
}

// attack is a row of testdata/attacks.txt: what is done to each connection, of which there are Most.
type attack struct {
	chaos.Flood
	Transport string // tcp, tls or h2
	Most      int
}

// newConnections is how many connections an attacker begins in a second. It shares two processors with certservice and
// with the clients, and its part of a handshake costs as much as certservice's.
const newConnections = 500

// readAttacks returns those with a name; "all attacks at once" are those that need no certificate.
func readAttacks(t *testing.T, name string) (found []attack) {
	t.Helper()
	const host = " HTTP/1.1\r\nHost: 127.0.0.1\r\n"
	var large bytes.Buffer
	if strings.Contains(name, "RSA-4096") {
		request := chaos.Enrolment("https://127.0.0.1/v1/certificate/RA", "RSA-4096")
		require.NoError(t, request.Write(&large))
	}
	for _, row := range chaos.Rows(t, "attacks.txt", 6, map[string]string{
		"GET": "GET /v1/certificate/RA" + host, "HOST": host, "60KB": strings.Repeat("a", 60<<10),
		"HEADERS": strings.Repeat("a: b\r\n", 10_000), "CHUNK": "2000\r\n" + strings.Repeat("x", 0x2000) + "\r\n",
		// A record of 16 KiB with a handshake message of which nothing more comes.
		"HELLO":   "\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03" + strings.Repeat("\x00", 8<<10),
		"STREAMS": http2Streams(), "RSA4096": large.String(),
	}) {
		if row[0] == name || name == allAtOnce && row[3] != "ask" {
			most := fixture.Must(strconv.Atoi("0" + row[2]))
			if most == 0 {
				most = 1 << 20
			}
			flood := chaos.Flood{Kind: row[0], How: row[3], First: row[4], Again: row[5]}
			found = append(found, attack{flood, row[1], most})
		}
	}
	require.NotEmpty(t, found, name)
	return found
}

const allAtOnce = "all attacks at once"

// start begins the attacks, and returns what ends them.
func (o order) start(t *testing.T) (stop func()) {
	t.Helper()
	o.Attacks = readAttacks(t, o.Name)
	var input bytes.Buffer
	require.NoError(t, gob.NewEncoder(&input).Encode(o))
	cmd := exec.Command("nice", "-n", "19", chaos.Self, "attack", "")
	cmd.Stdin, cmd.Stderr = &input, os.Stderr
	require.NoError(t, cmd.Start())
	stop = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	t.Cleanup(stop)
	return stop
}

// attackOthers is the process of an attacker: it holds so many connections at once, and makes new ones in place of
// those that end.
func attackOthers(string) int {
	var o order
	if err := gob.NewDecoder(os.Stdin).Decode(&o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	config := &tls.Config{}
	if o.Identity != "" {
		config = chaos.Identity(o.Identity)
	}
	config.InsecureSkipVerify = true // whom an attacker trusts makes no difference
	pace := time.Tick(time.Second / newConnections)
	var connections sync.WaitGroup
	for _, a := range o.Attacks {
		config := config.Clone()
		if a.Transport == "h2" {
			config.NextProtos = []string{"h2"}
		}
		for i := range min(a.Most, max(1, o.Connections/len(o.Attacks))) {
			dialer := from(fmt.Sprintf("127.0.9.%d", 1+i%4))
			connections.Go(func() {
				for {
					<-pace
					conn, err := net.Conn(nil), error(nil)
					if o.Plain || a.Transport == "tcp" {
						conn, err = dialer.Dial("tcp", o.Target)
					} else {
						conn, err = tls.DialWithDialer(dialer, "tcp", o.Target, config)
					}
					if err == nil {
						_ = a.Write(conn)
						conn.Close()
					}
				}
			})
		}
	}
	connections.Wait()
	return 0
}

// from makes connections from an address on loopback, which stand for another machine.
func from(address string) *net.Dialer {
	return &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}, Timeout: 20 * time.Second}
}

const http2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// http2Streams opens 250 streams with headers of 120 KB each, and grants no window for their answers.
func http2Streams() string {
	const settings, headers, continuation, windowSize, endStream, endHeaders = 4, 1, 9, 4, 1, 4
	frame := func(kind, flags byte, stream uint32, payload string) string { // RFC 9113, section 4.1
		head := binary.BigEndian.AppendUint32(nil, uint32(len(payload))<<8|uint32(kind))
		return string(binary.BigEndian.AppendUint32(append(head, flags), stream)) + payload
	}
	var all strings.Builder
	all.WriteString(http2Preface + frame(settings, 0, 0, string([]byte{0, windowSize, 0, 0, 0, 0})))
	// A header field that is in no table, of 15 KiB (RFC 7541, section 6.2.2), after those of GET https://127.0.0.1/.
	long := "\x00\x06x-long" + string(binary.AppendUvarint([]byte{127}, 15<<10-127)) + strings.Repeat("x", 15<<10)
	for stream := uint32(1); stream < 500; stream += 2 {
		all.WriteString(frame(headers, endStream, stream, "\x82\x84\x87\x01\x09127.0.0.1") +
			strings.Repeat(frame(continuation, 0, stream, long), 8) + frame(continuation, endHeaders, stream, ""))
	}
	return all.String()
}
