package certservice

import (
	"encoding/binary"
	"net/http"
	"os"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// entryText is a good entry, with one text replaced.
func entryText(caName, old, replacement string) string {
	return strings.Replace(`{"caName": "`+caName+`", "url": "http://ca", "issuerDN": "CN=ca",
		"authentication": {"iak": "very-secret-iak", "rv": "very-secret-rv"}}`, old, replacement, 1)
}

func fileOf(entries ...string) string {
	return `{"cmpv2Servers": [` + strings.Join(entries, ", ") + `]}`
}

func TestParseServers_whatCanBeRead_isReadWithAWarning(t *testing.T) {
	for _, row := range []struct {
		name, text, warning string
		check               func(Server) bool
	}{
		{"a number as secret", fileOf(entryText("RA", `"very-secret-iak"`, `12345678901234567890`)),
			"cmpv2Servers[0].authentication.iak: is a number, which is read as its text: write it in double quotes",
			func(s Server) bool { return string(s.IAK.Reveal()) == "12345678901234567890" }},
		{"a number keeps its spelling", fileOf(entryText("RA", `"very-secret-iak"`, `1.50E+2`)),
			"cmpv2Servers[0].authentication.iak: is a number, which is read as its text: write it in double quotes",
			func(s Server) bool { return string(s.IAK.Reveal()) == "1.50E+2" }},
		{"a boolean as reference", fileOf(entryText("RA", `"very-secret-rv"`, `true`)),
			"cmpv2Servers[0].authentication.rv: is true or false, which is read as its text: write it in double quotes",
			func(s Server) bool { return string(s.RV.Reveal()) == "true" }},
		{"a number as name", fileOf(entryText("RA", `"RA"`, `7`)),
			"cmpv2Servers[0].caName: is a number, which is read as its text: write it in double quotes",
			func(s Server) bool { return s.CAName == "7" }},
		{"a name with a space", fileOf(entryText("My CA", "", "")),
			`cmpv2Servers[0].caName: has "My CA", which clients must write as "My%20CA" in the path`,
			func(s Server) bool { return s.CAName == "My CA" }},
		{"a byte order mark", "\ufeff" + fileOf(entryText("RA", "", "")),
			"the file begins with a byte order mark, which is ignored", func(s Server) bool { return s.CAName == "RA" }},
		{"UTF-16, little end first", utf16Text(binary.LittleEndian, fileOf(entryText("RA", "", ""))),
			"the file begins with a byte order mark, which is ignored", func(s Server) bool { return s.CAName == "RA" }},
		{"UTF-16, big end first", utf16Text(binary.BigEndian, fileOf(entryText("RA", "", ""))),
			"the file begins with a byte order mark, which is ignored", func(s Server) bool { return s.CAName == "RA" }},
		{"a misspelt field", fileOf(entryText("RA", `"url"`, `"trustAnchor": "x.pem", "url"`)),
			`cmpv2Servers[0]: the field "trustAnchor" is not known and has no effect: did you mean "trustAnchors"?`, nil},
		{"a misspelt field of authentication", fileOf(entryText("RA", `"rv"`, `"RV": "x", "rv"`)),
			`cmpv2Servers[0].authentication: the field "RV" is not known and has no effect: did you mean "rv"?`, nil},
		{"TLS settings without TLS", fileOf(entryText("RA", `"url"`, `"tlsTrust": "root.pem", "url"`)),
			"cmpv2Servers[0].tlsTrust: has no effect, as url does not begin with https://", nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			file, err := parseServers([]byte(row.text), func(string) ([]byte, error) { return golden(t, "pem/root-ca.pem"), nil })

			require.NoError(t, err)
			require.Empty(t, file.Faults)
			assert.Equal(t, []string{row.warning}, file.Warnings)
			assert.True(t, row.check == nil || row.check(file.Servers[0]))
		})
	}
}

func utf16Text(order binary.AppendByteOrder, text string) string {
	var data []byte
	for _, unit := range utf16.Encode([]rune("\ufeff" + text)) {
		data = order.AppendUint16(data, unit)
	}
	return string(data)
}

func TestParseServers_missingField_namesTheOneMeantForIt(t *testing.T) {
	_, err := parseServers([]byte(fileOf(entryText("RA", "issuerDN", "issuerDn"))), noFiles)
	assert.EqualError(t, err, `cmpv2Servers[0].issuerDN: is missing (there is "issuerDn")`)
}

// badEntry has a secret and a fault.
func badEntry(caName string) string { return entryText(caName, "http://ca", "ftp://ca") }

func TestConfiguration_badEntry_leavesTheOthersInUse(t *testing.T) {
	c, path, log := newConfiguration(t, fileOf(entryText("RA", "", ""), badEntry("BAD")))
	m := NewMetrics("")
	c.metrics = m
	s := newService(t, nil, func(cfg *HandlerConfig) { cfg.Directory, cfg.Metrics = c, m })
	const fault = `cmpv2Servers[1].url: has the scheme "ftp", want http or https`

	err := c.Reload("start")

	assert.EqualError(t, err, "cmpServers.json is loaded in part, 1 of 2 servers as the file describes them: "+fault)
	assert.True(t, configured(c, "RA"))
	assert.False(t, configured(c, "BAD"))
	assert.Equal(t, http.StatusOK, s.get(t, "/ready", nil).StatusCode)
	r := s.get(t, "/reload", nil)
	assert.Equal(t, http.StatusInternalServerError, r.StatusCode)
	assert.Contains(t, r.text, `cmpv2Servers[1].url`)
	assert.Contains(t, written(m), "certservice_config_faulty_servers 1\n")
	assert.Contains(t, written(m), "certservice_config_servers 1\n")
	assert.Contains(t, written(m), "certservice_config_last_reload_successful 0\n")
	assert.NotContains(t, written(m), "certservice_config_last_success_timestamp_seconds")

	writeFile(t, path, fileOf(entryText("RA", "", ""), entryText("BAD", "", "")))
	require.NoError(t, c.Reload("request"))
	good, _ := c.Lookup("BAD")
	assert.Contains(t, written(m), "certservice_config_faulty_servers 0\n")
	assert.Contains(t, written(m), "certservice_config_last_reload_successful 1\n")

	writeFile(t, path, fileOf(entryText("NEW", "", ""), badEntry("BAD")))
	err = c.Reload("request")
	assert.EqualError(t, err, `cmpServers.json is loaded in part, 1 of 2 servers as the file describes them, as they were: ["BAD"]: `+fault)
	kept, _ := c.Lookup("BAD")
	assert.Same(t, good, kept)
	assert.True(t, configured(c, "NEW"))
	assert.False(t, configured(c, "RA"), "it is in the file no more")

	writeFile(t, path, fileOf(entryText("RA", "", ""), entryText("x", `"x"`, `""`)))
	require.Error(t, c.Reload("request"))
	assert.True(t, configured(c, "RA"))
	assert.True(t, configured(c, "NEW"), "the entry without a name may be any of those before")
	assert.True(t, configured(c, "BAD"))

	writeFile(t, path, fileOf(entryText("RA", "", ""))+" x")
	err = c.Reload("request")
	assert.ErrorContains(t, err, "cannot be loaded, the last good configuration stays in use: line 2, column ")
	assert.ErrorContains(t, err, "has 'x', want the end of the file")
	assert.True(t, configured(c, "NEW"))
	assert.NotContains(t, string(log.bytes()), "very-secret")
}

func TestConfiguration_warnings_areLoggedAtEachLoading(t *testing.T) {
	c, _, log := newConfiguration(t, fileOf(entryText("RA", `"very-secret-iak"`, "4711")))

	require.NoError(t, c.Reload("start"))
	require.NoError(t, c.Reload("request"))

	assert.Equal(t, 2, strings.Count(string(log.bytes()), "authentication.iak: is a number"))
	assert.NotContains(t, string(log.bytes()), "4711")
}

func TestHandler_caName_mayNeedEscapes(t *testing.T) {
	for name, path := range map[string]string{"My CA": "My%20CA", "a/b": "a%2Fb", "a%b": "a%25b", `q"\`: "q%22%5C", "å": "%C3%A5"} {
		s := newService(t, nil, func(cfg *HandlerConfig) { cfg.Directory = Static{name: goldenAuthority(t)} })

		r := s.get(t, "/v1/certificate/"+path, enrollHeader(t))

		assert.Equal(t, http.StatusOK, r.StatusCode, path)
		assert.Equal(t, name, s.audit(t)["ca"])
		assert.Equal(t, http.StatusOK, s.get(t, "/v1/certificate/"+path+"/", enrollHeader(t)).StatusCode)
	}
}

// The document's example is what operators copy.
func TestParseServers_documentedExample_isValid(t *testing.T) {
	text, err := os.ReadFile("../../docs/certservice.md")
	require.NoError(t, err)
	examples := 0
	for _, part := range strings.Split(string(text), "```json\n")[1:] {
		example, _, _ := strings.Cut(part, "```")
		if !strings.Contains(example, "cmpv2Servers") {
			continue
		}
		examples++
		file, err := parseServers([]byte(example), func(name string) ([]byte, error) {
			switch {
			case strings.HasSuffix(name, "key"):
				return golden(t, "pem/old-key.pem"), nil
			case strings.HasSuffix(name, ".crt"):
				return golden(t, "pem/old-certificate.pem"), nil
			}
			return golden(t, "pem/root-ca.pem"), nil
		})
		require.NoError(t, err, example)
		assert.Empty(t, file.Faults)
		assert.Empty(t, file.Warnings)
	}
	assert.GreaterOrEqual(t, examples, 2)
}
