package certservice

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/policy"
	"github.com/certfetcher/certfetcher/internal/program"
)

// endpoint is one path of the API.
type endpoint struct {
	path      string // as the OpenAPI document writes it
	operation string // for logs and metrics
	kind      endpointKind
	serve     func(h *Handler, r *http.Request, caName string, e *event) answer
}

type endpointKind int

const (
	acting  endpointKind = iota // changes or issues something: no HEAD, whose sender would not see the outcome
	reading                     // HEAD answers as GET does, without the body (RFC 9110, 9.3.2)
	posting                     // acts on the body of a POST
	probing                     // the same, and requested all the time: logged only when it fails
)

const (
	caNameParameter    = "{caName}"
	operationParameter = "{operation}"
)

// Operations that need an authority.
const (
	operationEnroll = "enroll"
	operationUpdate = "update"
	operationCMP    = "cmp"
)

// operationDescribe shows the description of the API.
const operationDescribe = "openapi"

// endpoints are all paths that are served; with a slash at
// the end as well, as with the ONAP server.
var endpoints = []endpoint{
	{"/v1/certificate/{caName}", operationEnroll, acting, (*Handler).certify},
	{"/v1/certificate-update/{caName}", operationUpdate, acting, (*Handler).certify},
	{"/.well-known/cmp/p/{caName}", operationCMP, posting, (*Handler).relay},
	{"/.well-known/cmp/p/{caName}/{operation}", operationCMP, posting, (*Handler).relay},
	{"/ready", "ready", probing, (*Handler).ready},
	{"/readyz", "ready", probing, (*Handler).ready},
	{"/healthz", "health", probing, (*Handler).health},
	{"/actuator/health", "health", probing, (*Handler).health},
	{"/reload", "reload", acting, (*Handler).reload},
	{"/openapi.yaml", operationDescribe, reading, apiYAML.serve},
	{"/v3/api-docs", operationDescribe, reading, apiJSON.serve},
	{"/api", operationDescribe, reading, apiPage.serve},
	{"/docs", operationDescribe, reading, apiPage.serve},
	{"/swagger-ui.html", operationDescribe, reading, apiPage.serve},
	{"/swagger-ui/index.html", operationDescribe, reading, apiPage.serve},
}

// findEndpoint takes the URL's segments apart before it
// decodes them, so that a CA name may hold an encoded slash.
func findEndpoint(u *url.URL) (found endpoint, caName string, ok bool) {
	segments := strings.Split(strings.TrimSuffix(u.EscapedPath(), "/"), "/")
	for i, segment := range segments {
		if decoded, err := url.PathUnescape(segment); err == nil {
			segments[i] = decoded
		}
	}
	for _, e := range endpoints {
		if caName, ok := e.matches(segments); ok {
			return e, caName, true
		}
	}
	return endpoint{}, "", false
}

func (e endpoint) matches(segments []string) (caName string, ok bool) {
	want := strings.Split(e.path, "/")
	if len(want) != len(segments) {
		return "", false
	}
	for i, segment := range segments {
		switch {
		case want[i] == caNameParameter && segment != "":
			caName = segment
		case want[i] == operationParameter && slices.Contains(cmp.OperationLabels, segment):
		case want[i] != segment:
			return "", false
		}
	}
	return caName, true
}

func (e endpoint) probe() bool { return e.kind == probing }

func (e endpoint) allows(method string) bool {
	if e.kind == posting {
		return method == http.MethodPost
	}
	return method == http.MethodGet || method == http.MethodHead && e.kind != acting
}

func (e endpoint) methodNotAllowed() answer {
	allowed := "GET"
	if e.kind == posting {
		allowed = "POST"
	}
	a := errorAnswer(http.StatusMethodNotAllowed, "Method not allowed, only "+allowed+" is")
	a.header["Allow"] = allowed
	if e.kind != acting && e.kind != posting {
		a.header["Allow"] = "GET, HEAD"
	}
	return a
}

func (h *Handler) ready(_ *http.Request, _ string, e *event) answer {
	if problem := h.notReady(); problem != "" {
		return unavailableAnswer(e, outcomeNotReady, problem)
	}
	return jsonAnswer(http.StatusOK, statusBody{"UP"})
}

// notReady says why no certificate can be issued; "": one can.
func (h *Handler) notReady() string {
	switch {
	case !h.cfg.Directory.Ready():
		return messageNotReady
	case h.cfg.Policy != nil && h.cfg.Policy.Current() == nil:
		return messageNoPolicy
	}
	return ""
}

func (h *Handler) health(*http.Request, string, *event) answer {
	return jsonAnswer(http.StatusOK, statusBody{"UP"})
}

func (h *Handler) reload(r *http.Request, _ string, e *event) answer {
	if refused, ok := h.forbid(e, policy.Reload, nil); !ok {
		return refused
	}
	_, err := h.reloads.ask(r.Context(), e.from)
	switch {
	case errors.Is(err, errRoundFull):
		e.reason = err.Error()
		return unavailableAnswer(e, outcomeOverloaded, messageReloads)
	case err != nil:
		e.outcome = outcomeFailed
		return errorAnswer(http.StatusInternalServerError, err.Error())
	}
	return jsonAnswer(http.StatusOK, statusBody{"RELOADED"})
}

const messageReloads = "Too many requests wait for a reload, try again later"

// Ops returns a handler for the plain port: probes and metrics, which kubelets and Prometheus ask
// for without a client certificate, and pages for people. Nothing here changes anything, so
// reloading is not offered.
func (h *Handler) Ops() http.Handler {
	mux := http.NewServeMux()
	for _, e := range endpoints {
		if e.probe() {
			handleGet(mux, e.path, func(w http.ResponseWriter, r *http.Request) {
				_ = e.serve(h, r, "", &event{}).write(w, r.Method)
			})
		}
	}
	handleGet(mux, "/metrics", writing(h.scrapes, program.SeriesContentType))
	h.addPages(mux)
	return mux
}

// writing serves what rounds write.
func writing(texts *rounds[[]byte], contentType string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		text, err := texts.ask(r.Context(), clientKey{})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", contentType)
		_, _ = w.Write(text)
	}
}

// handleGet serves GET and HEAD, with and without a slash at the end.
func handleGet(mux *http.ServeMux, path string, serve http.HandlerFunc) {
	mux.HandleFunc("GET "+path, serve)
	mux.HandleFunc("GET "+path+"/{$}", serve)
}
