package certservice

import (
	"errors"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// migrationRows are the rows of a table in the migration guide, by their first cell.
func migrationRows(t *testing.T, heading string) map[string][]string {
	t.Helper()
	content := must(os.ReadFile("../../docs/migrating-from-onap.md"))
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

// Each row of the guide is requested, and answered with the status and the text that the row has.
func TestMigrationGuide_requests_areAnsweredAsItSays(t *testing.T) {
	s := newService(t, goldenAuthority(t), nil)
	get := func(path string, header http.Header) []response { return []response{s.get(path, header)} }
	changed := func(request string, change func(http.Header)) http.Header {
		_, header := goldenRequest(t, request)
		change(header)
		return header
	}
	filled := func(size int) http.Header {
		return changed("enroll", func(h http.Header) { h.Set("X-Filler", strings.Repeat("a", size)) })
	}
	requests := map[string]func() []response{
		"no client certificate, or one that is not trusted": func() []response {
			strange := s.clientWith(identity(t, newCA(t, "Stranger")))
			return []response{
				s.do(s.clientWith(), http.MethodGet, enrollPath, nil, ""),
				s.do(strange, http.MethodGet, enrollPath, nil, ""),
			}
		},
		"an unknown CA, with a CSR that cannot be read": func() []response {
			return get("/v1/certificate/other", changed("enroll", func(h http.Header) { h.Set("CSR", "?") }))
		},
		"an enrolment while no configuration could be loaded": func() []response {
			c, _, _ := newConfiguration(t, "{")
			return []response{serviceOf(t, c).enroll()}
		},
		"an ECDSA or Ed25519 key": func() []response {
			key := edKey(t)
			return append(get(enrollPath, headerOf(t, newCSR(t, key), key)), s.enroll())
		},
		"a header that is missing": func() (all []response) {
			for _, name := range []string{"CSR", "PK", "OLD_CERT", "OLD_PK"} {
				all = append(all, get(updatePath, changed("update", func(h http.Header) { h.Del(name) }))...)
			}
			return all
		},
		"a header given twice": func() []response {
			return get(enrollPath, changed("enroll", func(h http.Header) { h.Add("CSR", h.Get("CSR")) }))
		},
		"a `PK` that is not the key of the CSR": func() []response {
			return get(updatePath, changed("update", func(h http.Header) { h.Set("PK", h.Get("OLD_PK")) }))
		},
		"a CSR whose signature does not verify": func() []response {
			key := newKey(t)
			der := newCSR(t, key)
			der[len(der)-1] ^= 1
			return get(enrollPath, headerOf(t, der, key))
		},
		"an update for other names, with an `OLD_PK` that is not the key of `OLD_CERT`": func() []response {
			s := newCMPServer(t).service(nil)
			header := enrollHeader(t)
			wrong := updateHeader(t, header, s.get(enrollPath, header).issued(), "other.example")
			wrong["Old_pk"] = wrong["Pk"]
			return []response{s.get(updatePath, wrong)}
		},
		"an update with RSA-4096 keys, about 20 KiB of headers": func() []response {
			return get(enrollPath, filled(20<<10))
		},
		"more than 64 KiB of headers": func() []response { return get(enrollPath, filled(64<<10)) },
		"HEAD on `/v1/certificate/{caName}`": func() []response {
			return []response{s.do(s.client, http.MethodHead, enrollPath, enrollHeader(t), "")}
		},
		"a CA that issues other names than asked for": func() []response {
			names := &FailedError{Err: errors.New("has other names"), Reason: ReasonNames}
			return []response{newService(t, failing(names), nil).enroll()}
		},
		"more enrolments at a time than `MAX_IN_FLIGHT` (256)": func() []response {
			s := newService(t, goldenAuthority(t), func(cfg *HandlerConfig) { cfg.MaxInFlight = 1 })
			_, _, _ = s.handler.slots.take("RA", Share{Authorities: 1}, key(1))
			return []response{s.enroll()}
		},
		"`/reload` with a file that cannot be read": func() []response {
			c, path, _ := newConfiguration(t, fileOf(entryText("RA")))
			require.NoError(t, c.Reload("start"))
			s := serviceOf(t, c)
			writeFile(t, path, []byte("{"))
			answer := s.get("/reload", nil)
			s.get("/ready", nil).is(200)
			return []response{answer}
		},
		"`/metrics`, `/healthz`, `/readyz`, `/openapi.yaml`": func() []response {
			s.get("/metrics", nil).is(404)
			return []response{s.get("/healthz", nil), s.get("/readyz", nil), s.get("/openapi.yaml", nil)}
		},
		"`/swagger-ui/index.html`, `/v3/api-docs`": func() []response {
			return []response{s.get("/swagger-ui/index.html", nil), s.get("/v3/api-docs", nil)}
		},
		"an unknown path": func() []response { return get("/v1/nowhere", nil) },
		"a method other than GET": func() []response {
			return []response{s.do(s.client, http.MethodPost, enrollPath, enrollHeader(t), "x")}
		},
	}
	rows := migrationRows(t, "### Requests that are answered otherwise")
	for name := range requests {
		assert.Contains(t, rows, name, "is not in the guide")
	}
	status := regexp.MustCompile("^([1-5][0-9]{2})(?: `([^`]*)`)?")
	for name, cells := range rows {
		t.Run(name, func(t *testing.T) {
			require.Contains(t, requests, name, "a row that no test requests")
			require.Len(t, cells, 2)
			want := status.FindStringSubmatch(cells[1])
			require.NotNil(t, want, "%q begins with no status", cells[1])
			for _, r := range requests[name]() {
				assert.Equal(t, want[1], strconv.Itoa(r.StatusCode), r.text)
				assert.Contains(t, r.text, want[2])
				if r.StatusCode >= 400 && r.Request.Method != http.MethodHead {
					assert.Contains(t, r.text, `{"errorMessage":"`)
				}
			}
		})
	}
}
