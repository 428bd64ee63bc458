package network

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// flood is what a hostile peer does to a connection: it writes first, and then does what how says until the other side
// closes the connection, or writing fails.
type flood struct{ kind, how, first, again string }

func (f flood) write(conn io.ReadWriter) error {
	_, err := io.WriteString(conn, f.first)
	for err == nil {
		switch f.how {
		case "endless":
			_, err = io.WriteString(conn, f.again)
		case "drip": // a byte a second
			err = drip(conn, f.again, time.Second)
		case "trickle": // once, and then it hangs
			err = drip(conn, f.again, 100*time.Millisecond)
			f.how = "hang"
		case "sip":
			_, err = conn.Read(make([]byte, 1))
			time.Sleep(time.Millisecond)
		case "hang":
			_, err = io.Copy(io.Discard, conn)
			return err
		default: // close
			return nil
		}
	}
	return err
}

func drip(w io.Writer, text string, pause time.Duration) error {
	for i := range len(text) {
		if _, err := io.WriteString(w, text[i:i+1]); err != nil {
			return err
		}
		time.Sleep(pause)
	}
	return nil
}

// readFloods reads lines "kind | how | first | again" of a file, with escapes as Go's and ${NAME} for texts.
func readFloods(t testing.TB, file string, texts map[string]string) (all []flood) {
	t.Helper()
	data, err := os.ReadFile("testdata/" + file)
	require.NoError(t, err)
	for line := range strings.Lines(string(data)) {
		fields := append(strings.Split(line, "|"), "")
		for i, field := range fields {
			field, err = strconv.Unquote(`"` + strings.TrimSpace(field) + `"`)
			require.NoError(t, err, line)
			fields[i] = os.Expand(field, func(name string) string {
				require.Contains(t, texts, name)
				return texts[name]
			})
		}
		f := flood{fields[0], fields[1], fields[2], fields[3]}
		require.Contains(t, []string{"hang", "close", "drip", "trickle", "sip", "endless"}, f.how)
		if f.how == "endless" {
			f.again = strings.Repeat(f.again, max(1, 32<<10/len(f.again)))
		}
		all = append(all, f)
	}
	return all
}

// head is the start of an answer of the media type.
func head(mediaType string) string { return "HTTP/1.1 200 OK\r\nContent-Type: " + mediaType + "\r\n" }

// floods are what a hostile server may do whose answers should have the media type. own is the start of a body of that
// type, at which a reader does not stop, and fill something that goes on in it.
func floods(t testing.TB, mediaType, own, fill string) []flood {
	const megabyte = 1 << 20
	var bomb bytes.Buffer
	zip := gzip.NewWriter(&bomb)
	for range 64 {
		_, _ = zip.Write(make([]byte, megabyte))
	}
	zip.Close()
	chunk := func(text string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(text), text) }
	header := func(size int) string { return "X: " + strings.Repeat("y", size) + "\r\n" }
	return readFloods(t, "floods.txt", map[string]string{
		"HEAD": head(mediaType), "OWN": own, "FILL": fill, "OWNCHUNK": chunk(own), "FILLCHUNK": chunk(fill),
		"LARGE": (own + strings.Repeat(fill, megabyte/len(fill)+1))[:megabyte-1], // just what is read in all
		"BOMB":  bomb.String(), "BOMBSIZE": strconv.Itoa(bomb.Len()),
		"HEADER": header(1000), "HEADERS": strings.Repeat(header(1020), 9*1024),
		"BUSY": "HTTP/1.1 503 Service Unavailable\r\n", "EMPTY": "Connection: close\r\nContent-Length: 0\r\n\r\n",
	})
}

// answerWith takes connections, reads a request of each and writes the flood.
func answerWith(listener net.Listener, current func() flood) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			request, err := http.ReadRequest(bufio.NewReader(conn))
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, request.Body)
			_ = current().write(conn)
		}()
	}
}
