package certservice

import (
	_ "embed" // the OpenAPI document
	"errors"
	"net/http"

	"github.com/certfetcher/certfetcher/internal/program"
)

//go:embed openapi.yaml
var openAPIDocument []byte

func (h *Handler) ready(_ *http.Request, _ string, e *event) answer {
	if !h.cfg.Directory.Ready() {
		return unavailable(e, outcomeNotReady, messageNotReady)
	}
	return jsonAnswer(http.StatusOK, statusBody{"UP"})
}

func (h *Handler) health(*http.Request, string, *event) answer {
	return jsonAnswer(http.StatusOK, statusBody{"UP"})
}

func (h *Handler) reload(r *http.Request, _ string, e *event) answer {
	_, err := h.reloads.ask(r.Context(), e.from)
	switch {
	case errors.Is(err, errRoundFull):
		e.reason = err.Error()
		return unavailable(e, outcomeOverloaded, messageReloads)
	case err != nil:
		e.outcome = outcomeFailed
		return errorAnswer(http.StatusInternalServerError, err.Error())
	}
	return jsonAnswer(http.StatusOK, statusBody{"RELOADED"})
}

const messageReloads = "Too many requests wait for a reload, try again later"

func (h *Handler) openAPI(*http.Request, string, *event) answer {
	return answer{status: http.StatusOK, contentType: "application/yaml", body: openAPIDocument} // RFC 9512
}

// Ops returns a handler for the plain port: probes and metrics, which kubelets and Prometheus ask for
// without a client certificate. Nothing here changes anything, so reloading is not offered.
func (h *Handler) Ops() http.Handler {
	mux := http.NewServeMux()
	for _, e := range endpoints {
		if e.probe() {
			handleGet(mux, e.path, func(w http.ResponseWriter, r *http.Request) {
				_ = e.serve(h, r, "", &event{}).write(w, r.Method)
			})
		}
	}
	handleGet(mux, "/metrics", func(w http.ResponseWriter, r *http.Request) {
		text, err := h.scrapes.ask(r.Context(), clientKey{})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", program.SeriesContentType)
		_, _ = w.Write(text)
	})
	return mux
}

// handleGet serves GET and HEAD, with and without a slash at the end.
func handleGet(mux *http.ServeMux, path string, serve http.HandlerFunc) {
	mux.HandleFunc("GET "+path, serve)
	mux.HandleFunc("GET "+path+"/{$}", serve)
}
