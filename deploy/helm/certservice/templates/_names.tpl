{{/* The name of all objects but the Service: the release's, with the chart's where it does not say so itself. */}}
{{- define "certservice.name" -}}
{{- $chart := .Values.nameOverride | default "certservice" }}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride }}
{{- else if contains $chart .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-{{ $chart }}{{ end }}
{{- end }}

{{- define "certservice.selector" -}}
app.kubernetes.io/name: {{ .Values.nameOverride | default "certservice" | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* The name that selects pods of helm test, which are no pods of the service. */}}
{{- define "certservice.testSelector" -}}
app.kubernetes.io/name: {{ .Values.nameOverride | default "certservice" }}-test
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* name, labels and annotations of an object: (list $ name labels annotations). The chart's own labels win over what
     values add, since others look for them. */}}
{{- define "certservice.metadata" -}}
{{- $ := index . 0 -}}
name: {{ index . 1 | quote }}
labels:
  {{- include "certservice.labels" $ | nindent 2 }}
  {{- with include "certservice.moreLabels" (list $ (index . 2)) }}
  {{- . | nindent 2 }}
  {{- end }}
{{- with index . 3 }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "certservice.labels" -}}
{{ include "certservice.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* What values add to the labels of an object, or of the pods: (list $ labels). */}}
{{- define "certservice.moreLabels" -}}
{{- $more := merge (dict) (index . 1 | default dict) ((index . 0).Values.commonLabels | default dict) }}
{{- range $own, $_ := include "certservice.labels" (index . 0) | fromYaml }}{{ $_ := unset $more $own }}{{ end }}
{{- with $more }}{{ toYaml . }}{{ end }}
{{- end }}

{{/* A map without what is null in it: where the chart is a part of another one, Helm leaves that in. */}}
{{- define "certservice.given" -}}
{{- $given := dict }}
{{- range $key, $value := . }}{{ if not (kindIs "invalid" $value) }}{{ $_ := set $given $key $value }}{{ end }}{{ end }}
{{- with $given }}{{ toYaml . }}{{ end }}
{{- end }}

{{- define "certservice.serviceAccount" -}}
{{- with .Values.serviceAccount }}
{{- if .create }}{{ .name | default (include "certservice.name" $) }}{{ else }}{{ .name | default "default" }}{{ end }}
{{- end }}
{{- end }}

{{- define "certservice.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{/* A variable's value as text. Large numbers come as floats, which would be written as 1e+06. */}}
{{- define "certservice.text" -}}
{{- if and (kindIs "float64" .) (eq (float64 (int64 .)) .) }}{{ int64 . }}{{ else }}{{ . }}{{ end }}
{{- end }}

{{/* The Service that has the metrics port. */}}
{{- define "certservice.metricsService" -}}
{{- if .Values.metricsService.enabled }}{{ include "certservice.name" . | trunc 55 | trimSuffix "-" }}-metrics
{{- else }}{{ .Values.serviceName }}{{ end }}
{{- end }}
