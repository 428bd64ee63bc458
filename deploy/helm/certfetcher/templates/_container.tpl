{{/* What both containers have in common. */}}
{{- define "certfetcher.container" -}}
{{- with .Values.certfetcher -}}
image: {{ .image.repository }}{{ if .image.digest }}@{{ .image.digest }}{{ else }}:{{ .image.tag }}{{ end }}
imagePullPolicy: {{ .image.pullPolicy }}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ .runAsUser | int64 }}
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
  seccompProfile: {type: RuntimeDefault}
resources: {{- toYaml .resources | nindent 2 }}
volumeMounts:
  - {name: certfetcher-certs, mountPath: {{ .env.OUTPUT_PATH }}}
  {{- if .token.enabled }}
  - {name: certfetcher-token, mountPath: {{ dir .token.path }}, readOnly: true}
  {{- else if ne .identity.format "none" }}
  - {name: certfetcher-mtls, mountPath: /etc/certfetcher, readOnly: true}
  {{- end }}
  {{- with .extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end }}

{{/* What only a sidecar has. */}}
{{- define "certfetcher.sidecar" -}}
env:
  - {name: MODE, value: sidecar}
  - {name: POD_UID, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}
  - {name: HEALTH_ADDR, value: ":{{ .Values.certfetcher.healthPort }}"}
  {{- include "certfetcher.env" . | nindent 2 }}
ports:
  - {name: certfetcher, containerPort: {{ .Values.certfetcher.healthPort }}}
livenessProbe:
  httpGet: {path: /livez, port: certfetcher}
readinessProbe:
  httpGet: {path: /readyz, port: certfetcher}
{{- end }}

{{/* The variables that do not depend on the mode. */}}
{{- define "certfetcher.env" -}}
{{- with .Values.certfetcher -}}
{{- $whom := ternary "CMP_URL" "CA_NAME" (eq (get .env "PROTOCOL" | toString) "cmp") }}
{{- range $name := list $whom "COMMON_NAME" "ORGANIZATION" "STATE" "COUNTRY" }}
{{- $given := hasKey $.Values.certfetcher.env $name }}
{{- range $.Values.certfetcher.extraEnv }}{{ if eq .name $name }}{{ $given = true }}{{ end }}{{ end }}
{{- if not $given }}{{ fail (printf "certfetcher.env.%s is required" $name) }}{{ end }}
{{- end }}
{{- if .token.enabled -}}
- {name: TOKEN_PATH, value: {{ .token.path }}}
- {name: TRUSTSTORE_PATH, value: {{ dir .token.path }}/ca.crt}
{{- else if eq .identity.format "PEM" -}}
- {name: KEYSTORE_PATH, value: /etc/certfetcher/tls.crt}
- {name: KEYSTORE_KEY_PATH, value: /etc/certfetcher/tls.key}
- {name: TRUSTSTORE_PATH, value: /etc/certfetcher/ca.crt}
{{- else if eq .identity.format "keystore" -}}
- {name: KEYSTORE_PATH, value: /etc/certfetcher/keystore.jks}
- {name: KEYSTORE_PASSWORD_FILE, value: /etc/certfetcher/keystore-password}
- {name: TRUSTSTORE_PATH, value: /etc/certfetcher/truststore.jks}
- {name: TRUSTSTORE_PASSWORD_FILE, value: /etc/certfetcher/truststore-password}
{{- end }}
{{- range $name, $value := .env }}
- {name: {{ $name }}, value: {{ $value | toString | quote }}}
{{- end }}
{{- with .extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end }}
