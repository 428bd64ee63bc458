{{/* Where the metrics are, and how they are read: (list port values). */}}
{{- define "certservice.endpoint" -}}
{{- $monitor := index . 1 -}}
port: {{ index . 0 }}
path: /metrics
{{- range $field := list "interval" "scrapeTimeout" "relabelings" "metricRelabelings" }}
{{- with get $monitor $field }}
{{ dict $field . | toYaml }}
{{- end }}
{{- end }}
{{- end }}
