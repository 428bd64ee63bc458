package chaos

import (
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// Rows reads the lines "a | b | c" of testdata/file, with \r and \n as Go's and ${NAME} for texts. Each has so many
// columns, of which the last ones may be left out.
func Rows(t testing.TB, file string, columns int, texts map[string]string) (rows [][]string) {
	t.Helper()
	data := fixture.Must(os.ReadFile("testdata/" + file))
	escapes := strings.NewReplacer(`\r`, "\r", `\n`, "\n")
	for line := range strings.Lines(string(data)) {
		row := strings.Split(line, "|")
		require.LessOrEqual(t, len(row), columns, line)
		for i, field := range row {
			row[i] = os.Expand(escapes.Replace(strings.TrimSpace(field)), func(name string) string {
				require.Contains(t, texts, name)
				return texts[name]
			})
		}
		rows = append(rows, append(row, make([]string, columns-len(row))...))
	}
	return rows
}

// Flood is what a hostile peer does to a connection: it writes First, and then does what How says, with Again, until
// the other side closes the connection, or writing fails.
type Flood struct{ Kind, How, First, Again string }

// Floods reads rows "kind | how | first | again".
func Floods(t testing.TB, file string, texts map[string]string) (all []Flood) {
	t.Helper()
	for _, row := range Rows(t, file, 4, texts) {
		all = append(all, Flood{row[0], row[1], row[2], row[3]})
	}
	return all
}

// Write does it to a connection.
func (f Flood) Write(conn io.ReadWriter) error {
	again := f.Again
	if f.How == "endless" {
		again = strings.Repeat(again, max(1, 32<<10/len(again)))
	}
	_, err := io.WriteString(conn, f.First)
	for err == nil {
		switch f.How {
		case "endless":
			_, err = io.WriteString(conn, again)
		case "repeat":
			_, err = io.WriteString(conn, again)
			time.Sleep(200 * time.Millisecond)
		case "ask": // again when it was answered
			if _, err = conn.Read(make([]byte, 16<<10)); err == nil {
				_, err = io.WriteString(conn, f.First)
			}
		case "drip": // a byte a second
			err = drip(conn, again, time.Second)
		case "trickle": // once, and then it hangs
			err = drip(conn, again, 100*time.Millisecond)
			f.How = "hang"
		case "sip":
			_, err = conn.Read(make([]byte, 1))
			time.Sleep(time.Millisecond)
		case "hang":
			_, err = io.Copy(io.Discard, conn)
			return err
		case "close":
			return nil
		default:
			panic("nothing is done like this: " + f.How)
		}
	}
	return err
}

func drip(w io.Writer, text string, pause time.Duration) (err error) {
	for i := 0; i < len(text) && err == nil; i++ {
		_, err = io.WriteString(w, text[i:i+1])
		time.Sleep(pause)
	}
	return err
}
