package certservice

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // the OpenAPI document and the page made from it
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
)

// document is a page or text that does not change while the program runs.
type document struct {
	header map[string]string
	text   []byte
}

// The API's description as written, as JSON, and as a page. The latter two are made from the first
// by make docs.
var (
	//go:embed openapi.yaml
	openAPIYAML []byte
	//go:embed openapi.json
	openAPIJSON []byte
	//go:embed api.html
	openAPIHTML []byte

	apiYAML = newDocument("application/yaml", openAPIYAML) // RFC 9512
	apiJSON = newDocument("application/json", openAPIJSON)
	apiPage = newDocument(contentHTML, openAPIHTML)
)

const contentHTML = "text/html; charset=utf-8"

func newDocument(contentType string, text []byte) document {
	d := document{map[string]string{"Content-Type": contentType, "X-Content-Type-Options": "nosniff"}, text}
	if contentType == contentHTML {
		d.header = pageHeader(text)
	}
	d.header["ETag"] = fmt.Sprintf(`"%.16x"`, sha256.Sum256(text))
	return d
}

// pageHeader has the headers of a page that loads nothing and that no other page may show or read. Its
// one style sheet is allowed by its hash, so that text that got into the page as markup could not
// even change how it looks.
func pageHeader(page []byte) map[string]string {
	_, rest, _ := bytes.Cut(page, []byte("<style>"))
	style, _, _ := bytes.Cut(rest, []byte("</style>"))
	hash := sha256.Sum256(style)
	return map[string]string{
		"Content-Type": contentHTML,
		"Content-Security-Policy": "default-src 'none'; style-src 'sha256-" +
			base64.StdEncoding.EncodeToString(hash[:]) +
			"'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
		"Cross-Origin-Opener-Policy":   "same-origin",
		"Cross-Origin-Resource-Policy": "same-origin",
		"Referrer-Policy":              "no-referrer",
		"X-Content-Type-Options":       "nosniff",
		"X-Frame-Options":              "DENY",
	}
}

// serve answers on the port of the API, for clients that are authenticated.
func (d document) serve(*Handler, *http.Request, string, *event) answer {
	return answer{status: http.StatusOK, header: d.header, body: d.text}
}

// ServeHTTP answers on the plain port. Browsers ask whether what they have is still right.
func (d document) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for name, value := range d.header {
		w.Header().Set(name, value)
	}
	w.Header().Set("Cache-Control", "no-cache")
	if etag := d.header["ETag"]; strings.Contains(r.Header.Get("If-None-Match"), etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	_, _ = w.Write(d.text)
}

// addPages adds the description of the API and, where it is wanted, the status. Without it the root
// leads to the description.
func (h *Handler) addPages(mux *http.ServeMux) {
	for _, e := range endpoints {
		if e.operation == operationDescribe {
			d := e.serve(h, nil, "", nil)
			handleGet(mux, e.path, document{d.header, d.body}.ServeHTTP)
		}
	}
	if h.cfg.NoStatus {
		mux.Handle("GET /{$}", http.RedirectHandler("/api", http.StatusFound))
		return
	}
	header := pageHeader(serviceStatus{}.html(0))
	header["Cache-Control"] = "no-store"
	page := func(w http.ResponseWriter, r *http.Request) {
		for name, value := range header {
			w.Header().Set(name, value)
		}
		made := h.status.page
		if r.URL.Query().Get("refresh") == "off" {
			made = h.status.still
		}
		writing(made, contentHTML)(w, r)
	}
	mux.HandleFunc("GET /{$}", page)
	handleGet(mux, "/status", page)
	handleGet(mux, "/status.json", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Cross-Origin-Resource-Policy", "same-origin")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		writing(h.status.json, "application/json")(w, r)
	})
}
