package network

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// flood is what a hostile server writes to a connection that a request came on, until writing fails.
type flood struct {
	kind  string
	write func(w io.Writer) error
}

const megabyte = 1 << 20

// endless writes the same again and again.
func endless(w io.Writer, text string) error {
	text = strings.Repeat(text, max(1, 32<<10/len(text)))
	for {
		if _, err := io.WriteString(w, text); err != nil {
			return err
		}
	}
}

// hang writes the text, and then waits for the other side to go.
func hang(w io.Writer, text string) error {
	if _, err := io.WriteString(w, text); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, w.(io.Reader))
	return err
}

// once writes the text and closes the connection.
func once(w io.Writer, text string) error {
	_, err := io.WriteString(w, text)
	return err
}

// drip writes a byte a second.
func drip(w io.Writer, text string) error {
	for {
		for i := range len(text) {
			if _, err := io.WriteString(w, text[i:i+1]); err != nil {
				return err
			}
			time.Sleep(time.Second)
		}
	}
}

// head is the start of an answer of the media type.
func head(mediaType, more string) string {
	return "HTTP/1.1 200 OK\r\nContent-Type: " + mediaType + "\r\n" + more + "\r\n"
}

// floods are what a hostile server may do whose answers should have the media type. own is the start of a body of that
// type, at which a reader does not stop, and fill something that goes on in it.
func floods(mediaType, own, fill string) []flood {
	large := own + strings.Repeat(fill, megabyte/len(fill)+1) // just what is read in all
	large = large[:megabyte-1]
	var bomb bytes.Buffer
	zip := gzip.NewWriter(&bomb)
	for range 64 {
		_, _ = zip.Write(make([]byte, megabyte))
	}
	zip.Close()
	text := func(kind string, write func(w io.Writer, text string) error, text string) flood {
		return flood{kind, func(w io.Writer) error { return write(w, text) }}
	}
	all := []flood{
		text("hangs", hang, ""),
		text("closes without an answer", once, ""),
		text("closes in the answer", once, head(mediaType, "Content-Length: 1000\r\n")+own),
		text("drips the status line", drip, head(mediaType, "")),
		text("drips headers", func(w io.Writer, s string) error {
			_, _ = io.WriteString(w, s)
			return drip(w, "X: y\r\n")
		}, "HTTP/1.1 200 OK\r\n"),
		text("drips the body", func(w io.Writer, s string) error {
			_, _ = io.WriteString(w, s)
			return drip(w, own+fill)
		}, head(mediaType, "Content-Length: 100000\r\n")),
		text("hangs in a body of 1 MiB", hang, head(mediaType, fmt.Sprintf("Content-Length: %d\r\n", megabyte))+large),
		text("claims a body of 10^18 bytes", hang, head(mediaType, "Content-Length: 1000000000000000000\r\n")+own),
		text("claims a body of 10^30 bytes", hang, head(mediaType, "Content-Length: "+
			"1000000000000000000000000000000\r\n")+own),
		text("chunk of 10^18 bytes", hang, head(mediaType, "Transfer-Encoding: chunked\r\n")+"DE0B6B3A7640000\r\n"+own),
		text("redirect to itself", once, "HTTP/1.1 307 Temporary Redirect\r\nLocation: /\r\nConnection: "+
			"close\r\nContent-Length: 0\r\n\r\n"),
		text("gzip bomb", once, head(mediaType, fmt.Sprintf("Content-Encoding: gzip\r\nConnection: "+
			"close\r\nContent-Length: %d\r\n", bomb.Len()))+bomb.String()),
		text("hangs in headers of 9 MiB", hang,
			"HTTP/1.1 200 OK\r\n"+strings.Repeat("X: "+strings.Repeat("y", 1020)+"\r\n",
				9*1024)),
		{"endless body", func(w io.Writer) error {
			_, _ = io.WriteString(w, head(mediaType, "")+own)
			return endless(w, fill)
		}},
		{"endless chunks", func(w io.Writer) error {
			_, _ = io.WriteString(w, head(mediaType, "Transfer-Encoding: chunked\r\n")+
				fmt.Sprintf("%x\r\n%s\r\n", len(own),
					own))
			return endless(w, fmt.Sprintf("%x\r\n%s\r\n", len(fill), fill))
		}},
		{"endless chunk extension", func(w io.Writer) error {
			_, _ = io.WriteString(w, head(mediaType, "Transfer-Encoding: chunked\r\n")+"1;")
			return endless(w, "x=y;")
		}},
		{"endless trailers", func(w io.Writer) error {
			_, _ = io.WriteString(w, head(mediaType, "Transfer-Encoding: chunked\r\nTrailer: X\r\n")+"0\r\n")
			return endless(w, "X: "+strings.Repeat("y", 1000)+"\r\n")
		}},
		{"endless status line", func(w io.Writer) error { return endless(w, "HTTP/1.1 200 OK") }},
		{"endless headers", func(w io.Writer) error {
			_, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\n")
			return endless(w, "X: "+strings.Repeat("y", 1000)+"\r\n")
		}},
		{"one endless header", func(w io.Writer) error {
			_, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\nX: ")
			return endless(w, "y")
		}},
		{"endless 100 Continue", func(w io.Writer) error { return endless(w, "HTTP/1.1 100 Continue\r\n\r\n") }},
		{"endless 103 Early Hints", func(w io.Writer) error {
			return endless(w, "HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n")
		}},
		{"endless error page", func(w io.Writer) error {
			_, _ = io.WriteString(w,
				"HTTP/1.1 500 Internal Server Error\r\nContent-Type: text/html\r\n\r\n<html><body>")
			return endless(w, "<p>no")
		}},
	}
	for _, after := range []string{"-1", "1000000000000", "99999999999999999999999999", "Thu, 01 Jan 1970 00:00:00 GMT",
		"Fri, 31 Dec 9999 23:59:59 GMT", "soon"} {
		all = append(all, text("503, Retry-After: "+after, once,
			"HTTP/1.1 503 Service Unavailable\r\nRetry-After: "+after+
				"\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"))
	}
	return all
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
