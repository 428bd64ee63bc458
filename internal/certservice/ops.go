package certservice

import (
	_ "embed" // the OpenAPI document
	"net/http"

	"github.com/certfetcher/certfetcher/internal/exposition"
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

func (h *Handler) reload(_ *http.Request, _ string, e *event) answer {
	if err := h.cfg.Directory.Reload("request"); err != nil {
		e.outcome = outcomeFailed
		return errorAnswer(http.StatusInternalServerError, err.Error())
	}
	return jsonAnswer(http.StatusOK, statusBody{"RELOADED"})
}

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
	handleGet(mux, "/metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", exposition.ContentType)
		h.cfg.Metrics.Write(w)
	})
	return mux
}

// handleGet serves GET and HEAD, with and without a slash at the end.
func handleGet(mux *http.ServeMux, path string, serve http.HandlerFunc) {
	mux.HandleFunc("GET "+path, serve)
	mux.HandleFunc("GET "+path+"/{$}", serve)
}
