{{/* The name of all objects but the Service: the release's, with the chart's where it does not say so itself. */}}
{{- define "certservice.name" -}}
{{- if contains "certservice" .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-certservice{{ end }}
{{- end }}

{{- define "certservice.selector" -}}
app.kubernetes.io/name: certservice
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "certservice.labels" -}}
{{ include "certservice.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "certservice.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}
