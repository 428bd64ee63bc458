{{/* The pod's securityContext, in which fsGroup lets the application read the files. */}}
{{- define "certfetcher.podSecurityContext" -}}
{{- $ids := pick .Values.certfetcher "runAsUser" "fsGroup" }}
{{- include "certfetcher.given" (merge (dict "runAsNonRoot" true "seccompProfile" (dict "type" "RuntimeDefault")) $ids) }}
{{- end }}

{{/* Entries of the pod's initContainers. */}}
{{- define "certfetcher.initContainers" -}}
{{- if eq .Values.certfetcher.mode "native-sidecar" -}}
{{- if semverCompare "<1.29.0-0" .Capabilities.KubeVersion.Version }}
{{- fail (printf "certfetcher.mode native-sidecar needs Kubernetes 1.29 or later, this is %s: set plain-sidecar" .Capabilities.KubeVersion.Version) }}
{{- end -}}
- name: certfetcher
  restartPolicy: Always
  {{- include "certfetcher.container" (list . nil) | nindent 2 }}
  {{- include "certfetcher.sidecar" . | nindent 2 }}
  {{- with .Values.certfetcher.startupProbe }}
  # Longer than RETRY_MAX_ELAPSED (5m), so that the sidecar itself says why it could not fetch.
  startupProbe:
    exec: {command: [/certfetcher, probe]}
    {{- include "certfetcher.given" . | nindent 4 }}
  {{- end }}
{{- else -}}
- name: certfetcher-init
  {{- include "certfetcher.container" (list . .Values.certfetcher.initResources) | nindent 2 }}
  env: {{- include "certfetcher.env" . | nindent 4 }}
{{- end }}
{{- if hasKey .Values.certfetcher.env "TRUSTSTORES_PATHS" }}
# Merges before the application starts, and says why when it cannot; a sidecar does it again after each renewal.
- name: certfetcher-postprocess
  args: [postprocess]
  {{- include "certfetcher.container" (list . .Values.certfetcher.postprocessResources) | nindent 2 }}
  env: {{- include "certfetcher.env" . | nindent 4 }}
{{- end }}
{{- end }}

{{/* Entries of the pod's containers; none but in mode plain-sidecar. */}}
{{- define "certfetcher.containers" -}}
{{- if eq .Values.certfetcher.mode "plain-sidecar" -}}
- name: certfetcher
  {{- include "certfetcher.container" (list . nil) | nindent 2 }}
  {{- include "certfetcher.sidecar" . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Entries of the pod's volumes. */}}
{{- define "certfetcher.volumes" -}}
- name: certfetcher-certs
  {{- with include "certfetcher.given" .Values.certfetcher.volume }}
  emptyDir: {{- . | nindent 4 }}
  {{- else }}
  emptyDir: {}
  {{- end }}
{{- if .Values.certfetcher.token.enabled }}
{{- with .Values.certfetcher.token }}
- name: certfetcher-token
  projected:
    sources:
      - serviceAccountToken: {audience: {{ .audience | quote }}, expirationSeconds: {{ .expirationSeconds | int64 }}, path: {{ base .path | quote }}}
      - configMap: {name: {{ .caConfigMapName | quote }}, items: [{key: {{ .caKey | quote }}, path: ca.crt}]}
{{- end }}
{{- else if ne .Values.certfetcher.identity.format "none" }}
- name: certfetcher-mtls
  secret: {secretName: {{ .Values.certfetcher.identity.secretName | quote }}, defaultMode: 0440}
{{- end }}
{{- with .Values.certfetcher.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Entries of the application container's volumeMounts. */}}
{{- define "certfetcher.volumeMounts" -}}
- {name: certfetcher-certs, mountPath: {{ .Values.certfetcher.env.OUTPUT_PATH | quote }}, readOnly: true}
{{- end }}

{{/* Labels of the pod, by which deploy/monitoring finds the sidecars. */}}
{{- define "certfetcher.podLabels" -}}
certfetcher: {{ if eq .Values.certfetcher.mode "init" }}init{{ else }}sidecar{{ end }}
{{- end }}
