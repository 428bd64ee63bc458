{{/* The version of MutatingAdmissionPolicy that the cluster serves. */}}
{{- define "certfetcher-injection.version" -}}
{{- $group := "admissionregistration.k8s.io" }}
{{- if .Values.apiVersion }}{{ $group }}/{{ .Values.apiVersion }}
{{- else if .Capabilities.APIVersions.Has (print $group "/v1/MutatingAdmissionPolicy") }}{{ $group }}/v1
{{- else if .Capabilities.APIVersions.Has (print $group "/v1beta1/MutatingAdmissionPolicy") }}{{ $group }}/v1beta1
{{- else }}
{{- fail (printf "this cluster (Kubernetes %s) does not serve MutatingAdmissionPolicy: Kubernetes 1.36 and later serve v1, 1.34 and 1.35 serve v1beta1 where the API server has --feature-gates=MutatingAdmissionPolicy=true and --runtime-config=admissionregistration.k8s.io/v1beta1=true; helm template does not ask the cluster: set apiVersion to v1 or v1beta1" .Capabilities.KubeVersion.Version) }}
{{- end }}
{{- end }}

{{/* Selects the namespaces of a binding. */}}
{{- define "certfetcher-injection.matchResources" -}}
namespaceSelector:
  matchLabels: { {{- .Values.namespaceLabel.name }}: {{ .Values.namespaceLabel.value | quote -}} }
{{- end }}
