package certservice

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// endpoint is one path of the API.
type endpoint struct {
	path      string // as the OpenAPI document writes it; caNameParameter can only be the last segment
	operation string // for logs and metrics
	kind      endpointKind
	serve     func(h *Handler, r *http.Request, caName string, e *event) answer
}

type endpointKind int

const (
	acting  endpointKind = iota // changes or issues something: no HEAD, whose sender would not see the outcome
	reading                     // HEAD answers as GET does, without the body (RFC 9110, 9.3.2)
	probing                     // the same, and asked all the time: worth a log line only when it fails
)

const caNameParameter = "{caName}"

// Operations that an authority is asked for.
const (
	operationEnroll = "enroll"
	operationUpdate = "update"
)

// endpoints are all that is served. A slash at the end of a path makes no difference, as with the ONAP server.
var endpoints = []endpoint{
	{"/v1/certificate/{caName}", operationEnroll, acting, (*Handler).enroll},
	{"/v1/certificate-update/{caName}", operationUpdate, acting, (*Handler).update},
	{"/ready", "ready", probing, (*Handler).ready},
	{"/readyz", "ready", probing, (*Handler).ready},
	{"/healthz", "health", probing, (*Handler).health},
	{"/actuator/health", "health", probing, (*Handler).health},
	{"/reload", "reload", acting, (*Handler).reload},
	{"/openapi.yaml", "openapi", reading, (*Handler).openAPI},
}

// findEndpoint takes the URL's segments apart before it decodes them, so that a CA name may hold an encoded slash.
func findEndpoint(u *url.URL) (found endpoint, caName string, ok bool) {
	segments, ok := pathSegments(u)
	if !ok {
		return endpoint{}, "", false
	}
	last := len(segments) - 1
	for _, e := range endpoints {
		want := strings.Split(e.path, "/")
		switch {
		case len(want) != len(segments) || !slices.Equal(want[:last], segments[:last]):
		case want[last] == caNameParameter && segments[last] != "":
			return e, segments[last], true
		case want[last] == segments[last]:
			return e, "", true
		}
	}
	return endpoint{}, "", false
}

// pathSegments returns the decoded segments of a path, without the empty one after a slash at its end.
func pathSegments(u *url.URL) ([]string, bool) {
	segments := strings.Split(strings.TrimSuffix(u.EscapedPath(), "/"), "/")
	for i, segment := range segments {
		decoded, err := url.PathUnescape(segment)
		if err != nil {
			return nil, false
		}
		segments[i] = decoded
	}
	return segments, true
}

func (e endpoint) probe() bool { return e.kind == probing }

func (e endpoint) allows(method string) bool {
	return method == http.MethodGet || method == http.MethodHead && e.kind != acting
}

func (e endpoint) methodNotAllowed() answer {
	a := errorAnswer(http.StatusMethodNotAllowed, "Method not allowed, only GET is")
	a.allow = http.MethodGet
	if e.kind != acting {
		a.allow += ", " + http.MethodHead
	}
	return a
}
