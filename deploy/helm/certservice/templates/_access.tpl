{{/* Who may ask for what: the variables. Values that contradict one another are refused here. */}}
{{- define "certservice.accessVariables" -}}
{{- $v := .Values }}
{{- if and $v.policy.inline $v.policy.configMapName }}
{{- fail "policy.inline and policy.configMapName are both set: there is one policy" }}
{{- end }}
{{- if or $v.policy.inline $v.policy.configMapName }}
- {name: POLICY_PATH, value: /etc/certservice/policy/{{ $v.policy.key }}}
{{- end }}
{{- with $v.adminClients }}
- {name: ADMIN_CLIENTS, value: {{ join ";" . | quote }}}
{{- end }}
{{- if and $v.clientCRL.configMapName $v.clientCRL.secretName }}
{{- fail "clientCRL.configMapName and clientCRL.secretName are both set: one of them has the CRLs" }}
{{- end }}
{{- if or $v.clientCRL.configMapName $v.clientCRL.secretName }}
- {name: CLIENT_CRL_PATH, value: /etc/certservice/crl}
- {name: CLIENT_CRL_PROBLEM, value: {{ $v.clientCRL.problem }}}
{{- end }}
{{- if include "certservice.tokens" . }}
{{- if not $v.token.issuer }}
{{- fail (printf "clientCredentials %s needs token.issuer: kubectl get --raw /.well-known/openid-configuration says it" $v.clientCredentials) }}
{{- end }}
{{- if eq (get $v.env "CLIENT_AUTH" | toString) "handshake" }}
{{- fail (printf "clientCredentials %s needs env.CLIENT_AUTH answer: a client with a token has no certificate for the handshake" $v.clientCredentials) }}
{{- end }}
{{- if and $v.token.jwks.inline $v.token.jwks.configMapName }}
{{- fail "token.jwks.inline and token.jwks.configMapName are both set: one of them has the keys" }}
{{- end }}
- {name: CLIENT_CREDENTIALS, value: {{ $v.clientCredentials }}}
- {name: TOKEN_ISSUER, value: {{ $v.token.issuer | quote }}}
- {name: TOKEN_AUDIENCE, value: {{ $v.token.audience | quote }}}
- {name: TOKEN_ALLOW_UNBOUND, value: {{ $v.token.allowUnbound | toString | quote }}}
{{- if not (include "certservice.discovery" .) }}
- {name: TOKEN_JWKS_PATH, value: /etc/certservice/jwks/{{ $v.token.jwks.key }}}
{{- else if $v.token.issuerCA.configMapName }}
- {name: TOKEN_ISSUER_CA, value: /etc/certservice/issuer-ca/{{ $v.token.issuerCA.key }}}
{{- end }}
{{- else if $v.token.issuer }}
{{- fail "token.issuer is of no use with clientCredentials certificate: set token, or any" }}
{{- end }}
{{- end }}

{{/* The file with the CAs of the clients' certificates, where it is not that of the service's own Secret. */}}
{{- define "certservice.clientCA" -}}
{{- with .Values.tls.clientCA }}
{{- if and .configMapName .secretName }}
{{- fail "tls.clientCA.configMapName and tls.clientCA.secretName are both set: one of them has the CAs" }}
{{- end }}
{{- if or .configMapName .secretName }}/etc/certservice/client-ca/{{ .key }}{{ end }}
{{- end }}
{{- end }}

{{/* Not empty where tokens count. */}}
{{- define "certservice.tokens" -}}
{{- if ne .Values.clientCredentials "certificate" }}yes{{ end }}
{{- end }}

{{/* Not empty where the issuer is asked for its keys. */}}
{{- define "certservice.discovery" -}}
{{- with .Values.token.jwks }}
{{- if and (include "certservice.tokens" $) (not .inline) (not .configMapName) }}yes{{ end }}
{{- end }}
{{- end }}

{{/* Whole directories: a file mounted by subPath would never change. */}}
{{- define "certservice.accessMounts" -}}
{{- $v := .Values }}
{{- if include "certservice.clientCA" . }}
- {name: client-ca, mountPath: /etc/certservice/client-ca, readOnly: true}
{{- end }}
{{- if or $v.policy.inline $v.policy.configMapName }}
- {name: policy, mountPath: /etc/certservice/policy, readOnly: true}
{{- end }}
{{- if or $v.clientCRL.configMapName $v.clientCRL.secretName }}
- {name: crl, mountPath: /etc/certservice/crl, readOnly: true}
{{- end }}
{{- if include "certservice.discovery" . }}
{{- if $v.token.ownToken }}
- {name: own-token, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
{{- end }}
{{- if $v.token.issuerCA.configMapName }}
- {name: issuer-ca, mountPath: /etc/certservice/issuer-ca, readOnly: true}
{{- end }}
{{- else if include "certservice.tokens" . }}
- {name: jwks, mountPath: /etc/certservice/jwks, readOnly: true}
{{- end }}
{{- end }}

{{- define "certservice.accessVolumes" -}}
{{- $v := .Values }}
{{- $name := include "certservice.name" . }}
{{- if include "certservice.clientCA" . }}
- name: client-ca
  {{- with $v.tls.clientCA }}
  {{- if .configMapName }}
  configMap: {name: {{ .configMapName | quote }}}
  {{- else }}
  secret: {secretName: {{ .secretName | quote }}, defaultMode: 0440}
  {{- end }}
  {{- end }}
{{- end }}
{{- if or $v.policy.inline $v.policy.configMapName }}
- name: policy
  configMap: {name: {{ $v.policy.configMapName | default (printf "%s-policy" $name) | quote }}}
{{- end }}
{{- if $v.clientCRL.configMapName }}
- name: crl
  configMap: {name: {{ $v.clientCRL.configMapName | quote }}}
{{- else if $v.clientCRL.secretName }}
- name: crl
  secret: {secretName: {{ $v.clientCRL.secretName | quote }}, defaultMode: 0440}
{{- end }}
{{- if include "certservice.discovery" . }}
{{- if $v.token.ownToken }}
# What Kubernetes would mount by itself, but for a token of one hour. The ConfigMap is in every namespace.
- name: own-token
  projected:
    sources:
      - serviceAccountToken: {path: token, expirationSeconds: 3600}
      - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
{{- end }}
{{- if $v.token.issuerCA.configMapName }}
- name: issuer-ca
  configMap: {name: {{ $v.token.issuerCA.configMapName | quote }}}
{{- end }}
{{- else if include "certservice.tokens" . }}
- name: jwks
  configMap: {name: {{ $v.token.jwks.configMapName | default (printf "%s-jwks" $name) | quote }}}
{{- end }}
{{- end }}
