{{/* What all containers have in common: (list $ resources). */}}
{{- define "certfetcher.container" -}}
{{- $own := index . 1 }}
{{- with (index . 0).Values.certfetcher -}}
image: "{{ .image.repository }}{{ if .image.digest }}@{{ .image.digest }}{{ else }}:{{ .image.tag }}{{ end }}"
imagePullPolicy: {{ .image.pullPolicy }}
{{- $context := merge (dict) (get . "securityContext" | default dict) }}
{{- if and (hasKey . "runAsUser") (not (hasKey $context "runAsUser")) }}{{ $_ := set $context "runAsUser" .runAsUser }}{{ end }}
{{- with include "certfetcher.given" $context }}
securityContext: {{- . | nindent 2 }}
{{- end }}
{{- with $own | default .resources }}
resources: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with get .env "TERMINATION_MESSAGE_PATH" }}
terminationMessagePath: {{ . | quote }}
{{- end }}
{{- with .terminationMessagePolicy }}
terminationMessagePolicy: {{ . }}
{{- end }}
{{- with .envFrom }}
envFrom: {{- toYaml . | nindent 2 }}
{{- end }}
volumeMounts:
  - {name: certfetcher-certs, mountPath: {{ .env.OUTPUT_PATH | quote }}}
  {{- if .token.enabled }}
  - {name: certfetcher-token, mountPath: {{ dir .token.path | quote }}, readOnly: true}
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
{{- range $probe, $path := dict "livenessProbe" "/livez" "readinessProbe" "/readyz" }}
{{- if kindIs "map" (get $.Values.certfetcher $probe) }}
{{ $probe }}:
  httpGet: {path: {{ $path }}, port: certfetcher}
  {{- with include "certfetcher.given" (get $.Values.certfetcher $probe) }}
  {{- . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end }}
{{- with .Values.certfetcher.lifecycle }}
lifecycle: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* A map without what is null in it. */}}
{{- define "certfetcher.given" -}}
{{- $given := dict }}
{{- range $key, $value := . }}{{ if not (kindIs "invalid" $value) }}{{ $_ := set $given $key $value }}{{ end }}{{ end }}
{{- with $given }}{{ toYaml . }}{{ end }}
{{- end }}

{{/* A variable's value as text. Large numbers come as floats, which would be written as 1e+06. */}}
{{- define "certfetcher.text" -}}
{{- if and (kindIs "float64" .) (eq (float64 (int64 .)) .) }}{{ int64 . }}{{ else }}{{ . }}{{ end }}
{{- end }}

{{/* The variables that do not depend on the mode. */}}
{{- define "certfetcher.env" -}}
{{- with .Values.certfetcher -}}
{{- $whom := ternary "CMP_URL" "CA_NAME" (eq (get .env "PROTOCOL" | toString) "cmp") }}
{{- range $name := list $whom "COMMON_NAME" "ORGANIZATION" "STATE" "COUNTRY" }}
{{- $given := or (hasKey $.Values.certfetcher.env $name) (not (empty $.Values.certfetcher.envFrom)) }}
{{- range $.Values.certfetcher.extraEnv }}{{ if eq .name $name }}{{ $given = true }}{{ end }}{{ end }}
{{- if not $given }}{{ fail (printf "certfetcher.env.%s is required" $name) }}{{ end }}
{{- end }}
{{- if .token.enabled -}}
- {name: TOKEN_PATH, value: {{ .token.path | quote }}}
- {name: TRUSTSTORE_PATH, value: {{ printf "%s/ca.crt" (dir .token.path) | quote }}}
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
{{- if not (kindIs "invalid" $value) }}
- {name: {{ $name }}, value: {{ include "certfetcher.text" $value | quote }}}
{{- end }}
{{- end }}
{{- with .extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end }}
