package certservice

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/devca"
)

// migrationRows are the rows of a table in the migration guide, by their first cell.
func migrationRows(t *testing.T, heading string) map[string][]string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("..", "..", "docs", "migrating-from-onap.md"))
	require.NoError(t, err)
	_, section, found := strings.Cut(string(content), "\n"+heading+"\n")
	require.True(t, found, heading)
	section, _, _ = strings.Cut(section, "\n#")
	rows := map[string][]string{}
	for line := range strings.Lines(section) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		if strings.HasPrefix(line, "| ") && len(cells) > 1 && cells[0] != " request" {
			rows[strings.TrimSpace(cells[0])] = cells[1:]
		}
	}
	require.NotEmpty(t, rows)
	return rows
}

// swapped are good headers, changed.
func swapped(t *testing.T, request string, change func(http.Header)) http.Header {
	t.Helper()
	_, header := goldenRequest(t, request+".request.json")
	change(header)
	return header
}

// Each row of the guide is asked for, and answered with the status and the text that the row has.
func TestMigrationGuide_requests_areAnsweredAsItSays(t *testing.T) {
	const enrol, update = "/v1/certificate/RA", "/v1/certificate-update/RA"
	service := func(t *testing.T) *service { return newService(t, goldenAuthority(t), nil) }
	get := func(path string, header func(t *testing.T) http.Header) func(t *testing.T) []response {
		return func(t *testing.T) []response { return []response{service(t).get(t, path, header(t))} }
	}
	requests := map[string]func(t *testing.T) []response{
		"no client certificate, or one that is not trusted": func(t *testing.T) []response {
			s := service(t)
			strange := s.clientWith(t, identity(t, newCA(t, "Stranger")))
			return []response{
				s.do(t, s.clientWith(t), http.MethodGet, enrol, enrollHeader(t), nil),
				s.do(t, strange, http.MethodGet, enrol, enrollHeader(t), nil),
			}
		},
		"an unknown CA, with a CSR that cannot be read": get("/v1/certificate/other", func(t *testing.T) http.Header {
			return swapped(t, "enroll", func(h http.Header) { h.Set("CSR", "?") })
		}),
		"an enrolment while no configuration could be loaded": func(t *testing.T) []response {
			c, _, _ := newConfiguration(t, "{")
			require.Error(t, c.Reload("start"))
			s := newService(t, nil, func(cfg *HandlerConfig) { cfg.Directory = c })
			r := s.get(t, enrol, enrollHeader(t))
			assert.NotEmpty(t, r.Header.Get("Retry-After"))
			return []response{r}
		},
		"an ECDSA or Ed25519 key": func(t *testing.T) []response {
			_, key, err := ed25519.GenerateKey(rand.Reader)
			require.NoError(t, err)
			s := service(t)
			return []response{s.get(t, enrol, enrollHeader(t)), s.get(t, enrol, headerOf(t, newCSR(t, key), key))}
		},
		"a header that is missing": func(t *testing.T) []response {
			var all []response
			for _, name := range []string{"CSR", "PK", "OLD_CERT", "OLD_PK"} {
				all = append(all, service(t).get(t, update, swapped(t, "update", func(h http.Header) { h.Del(name) })))
			}
			return all
		},
		"a header given twice": get(enrol, func(t *testing.T) http.Header {
			return swapped(t, "enroll", func(h http.Header) { h.Add("CSR", h.Get("CSR")) })
		}),
		"a `PK` that is not the key of the CSR": get(update, func(t *testing.T) http.Header {
			return swapped(t, "update", func(h http.Header) { h.Set("PK", h.Get("OLD_PK")) })
		}),
		"a CSR whose signature does not verify": get(enrol, func(t *testing.T) http.Header {
			key := newKey(t)
			der := newCSR(t, key)
			der[len(der)-1] ^= 1
			return headerOf(t, der, key)
		}),
		"an update for other names, with an `OLD_PK` that is not the key of `OLD_CERT`": func(t *testing.T) []response {
			s, _ := newDevCAService(t, devca.RespondMAC, anchored)
			header := enrollHeader(t)
			enrolled := s.get(t, enrol, header)
			require.Equal(t, http.StatusOK, enrolled.StatusCode)
			wrong := updateHeader(t, header, enrolled.text, "other.example")
			wrong["Old_pk"] = wrong["Pk"]
			return []response{s.get(t, update, wrong)}
		},
		"an update with RSA-4096 keys, about 20 KiB of headers": get(enrol, func(t *testing.T) http.Header {
			h := enrollHeader(t)
			h.Set("X-Filler", strings.Repeat("a", 20<<10))
			return h
		}),
		"more than 64 KiB of headers": get(enrol, func(t *testing.T) http.Header {
			h := enrollHeader(t)
			h.Set("X-Filler", strings.Repeat("a", 64<<10))
			return h
		}),
		"HEAD on `/v1/certificate/{caName}`": func(t *testing.T) []response {
			s := newService(t, funcAuthority(func(context.Context, Request) (Issued, error) {
				assert.Fail(t, "the CA was asked")
				return Issued{}, errors.New("asked")
			}), nil)
			return []response{s.do(t, s.client, http.MethodHead, enrol, enrollHeader(t), nil)}
		},
		"a CA that issues other names than asked for": func(t *testing.T) []response {
			s := newService(t, funcAuthority(func(context.Context, Request) (Issued, error) {
				return Issued{}, &NamesError{errors.New("has other names")}
			}), nil)
			return []response{s.get(t, enrol, enrollHeader(t))}
		},
		"more enrolments at a time than `MAX_IN_FLIGHT` (256)": overloaded,
		"`/reload` with a file that cannot be read": func(t *testing.T) []response {
			c, path, _ := newConfiguration(t, serversFile("RA"))
			require.NoError(t, c.Reload("start"))
			s := newService(t, nil, func(cfg *HandlerConfig) { cfg.Directory = c })
			writeFile(t, path, "{")
			answer := s.get(t, "/reload", nil)
			assert.Equal(t, http.StatusOK, s.get(t, "/ready", nil).StatusCode)
			return []response{answer}
		},
		"`/metrics`, `/healthz`, `/readyz`, `/openapi.yaml`": func(t *testing.T) []response {
			s := service(t)
			assert.Equal(t, http.StatusNotFound, s.get(t, "/metrics", nil).StatusCode)
			return []response{s.get(t, "/healthz", nil), s.get(t, "/readyz", nil), s.get(t, "/openapi.yaml", nil)}
		},
		"`/swagger-ui/index.html`, `/v3/api-docs`": func(t *testing.T) []response {
			s := service(t)
			return []response{s.get(t, "/swagger-ui/index.html", nil), s.get(t, "/v3/api-docs", nil)}
		},
		"an unknown path": get("/v1/nowhere", func(*testing.T) http.Header { return nil }),
		"a method other than GET": func(t *testing.T) []response {
			s := service(t)
			r := s.do(t, s.client, http.MethodPost, enrol, enrollHeader(t), strings.NewReader("x"))
			assert.NotEmpty(t, r.Header.Get("Allow"))
			return []response{r}
		},
	}
	rows := migrationRows(t, "### Requests that are answered otherwise")
	for name := range requests {
		assert.Contains(t, rows, name, "is not in the guide")
	}
	status := regexp.MustCompile("^([1-5][0-9]{2})(?: `([^`]*)`)?")
	for name, cells := range rows {
		t.Run(name, func(t *testing.T) {
			require.Contains(t, requests, name, "a row that no test asks for")
			require.Len(t, cells, 2)
			want := status.FindStringSubmatch(cells[1])
			require.NotNil(t, want, "%q begins with no status", cells[1])
			for _, r := range requests[name](t) {
				assert.Equal(t, want[1], strconv.Itoa(r.StatusCode), r.text)
				assert.Contains(t, r.text, want[2])
				if r.StatusCode >= 400 && r.Request.Method != http.MethodHead {
					assert.Contains(t, r.text, `{"errorMessage":"`)
				}
			}
		})
	}
}

// overloaded is what the second of two requests gets where one is the limit.
func overloaded(t *testing.T) []response {
	entered, leave := make(chan struct{}), make(chan struct{})
	s := newService(t, funcAuthority(func(ctx context.Context, r Request) (Issued, error) {
		entered <- struct{}{}
		<-leave
		return goldenAuthority(t).Enroll(ctx, r)
	}), func(cfg *HandlerConfig) { cfg.MaxInFlight = 1 })
	header := enrollHeader(t)
	first := make(chan int)
	go func() { first <- s.get(t, "/v1/certificate/RA", header).StatusCode }()
	<-entered
	second := s.get(t, "/v1/certificate/RA", header)
	close(leave)
	assert.Equal(t, http.StatusOK, <-first)
	assert.NotEmpty(t, second.Header.Get("Retry-After"))
	return []response{second}
}
