package notify

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// speak follows a dialogue of testdata/dialogues.txt, and hangs up when the client does not.
func speak(conn net.Conn, dialogue []string) (followed bool) {
	for _, step := range dialogue {
		var who, text string
		var times int
		_, err := fmt.Sscanf(step, "%s %d %q", &who, &times, &text)
		switch text = strings.Repeat(text, times); {
		case err != nil:
			panic(step)
		case who == "hangup":
			return false
		case who == "server":
			_, _ = io.WriteString(conn, text)
			continue
		}
		got := make([]byte, len(text))
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != text {
			return false
		}
	}
	return true
}

func TestVerifier_dialogues(t *testing.T) {
	content := fixture.Must(os.ReadFile("testdata/dialogues.txt"))
	cert, event := issue(newCA())
	for _, block := range strings.Split(strings.TrimSpace(string(content)), "\n\n")[1:] {
		lines := strings.Split(block, "\n")
		name, scheme, _ := strings.Cut(lines[0], ": ")
		dialogue, want := lines[1:len(lines)-1], lines[len(lines)-1]
		// look has a server follow the dialogue and then say something in the clear.
		look := func(t *testing.T, after string) (address string, err error) {
			address = startTLS(t, cert, func(conn net.Conn) bool {
				followed := speak(conn, dialogue)
				_, _ = io.WriteString(conn, after)
				if followed && want != "TLS" {
					_, _ = io.Copy(io.Discard, conn) // so that what was said is not lost in a reset
				}
				return want == "TLS"
			}).address
			target := strings.TrimPrefix(scheme+"://"+address, "-://")
			v, _ := create[*verifier](t, Settings{Verify: target})
			return address, v.look(t.Context(), event)
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address, err := look(t, "")
			if want != "TLS" {
				require.ErrorContains(t, err, strings.ReplaceAll(want, "ADDRESS", address))
				assert.NotContains(t, err.Error(), "\x1b")
				assert.Equal(t, strings.Contains(want, "the server speaks"),
					strings.Contains(err.Error(), "before TLS"))
				return
			}
			require.NoError(t, err)
			// What is sent along with the answer, in the clear, is never taken for something that came under TLS.
			_, err = look(t, "* injected\r\n")
			require.ErrorContains(t, err, "first record does not look like a TLS handshake")
		})
	}
}

// scripted is a connection on which a server says something whatever it is asked.
type scripted struct {
	net.Conn
	says *strings.Reader
}

func (s scripted) Read(b []byte) (int, error)  { return s.says.Read(b) }
func (s scripted) Write(b []byte) (int, error) { return len(b), nil }

func FuzzStart_whateverAServerSays(f *testing.F) {
	for _, seed := range []string{
		"S", "N", "E", "220 x\r\n250-x\r\n250 STARTTLS\r\n220 go\r\n", "220\n250\n",
		"* OK x\r\na OK\r\n", "* OK\n* x\na NO\n",
		"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00", "\x30\x84\xff\xff\xff\xff",
		"\x30\x04\x02\x84\xff\xff",
	} {
		f.Add(seed + "rest")
	}
	f.Fuzz(func(t *testing.T, says string) {
		for scheme, p := range protocols {
			if p.start == nil {
				continue
			}
			conn := scripted{says: strings.NewReader(says)}
			if err := p.start(conn); err == nil {
				read := len(says) - conn.says.Len()
				// What was read is the answer in full, and nothing of what follows it.
				again := scripted{says: strings.NewReader(says[:read])}
				require.NoError(t, p.start(again), scheme)
				require.Error(t, p.start(scripted{says: strings.NewReader(says[:read-1])}), scheme)
			}
			_ = recognise([]byte(says), "h:1")
		}
	})
}
