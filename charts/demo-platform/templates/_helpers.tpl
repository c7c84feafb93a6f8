{{/* The labels of a part. Call with (list $ "consul"). */}}
{{- define "labels" -}}
{{ include "selector" . }}
app.kubernetes.io/part-of: fusebox-demo-platform
app.kubernetes.io/managed-by: {{ (first .).Release.Service }}
{{- end -}}

{{/* The labels by which a part's pods are found. */}}
{{- define "selector" -}}
app.kubernetes.io/name: {{ last . }}
app.kubernetes.io/instance: {{ (first .).Release.Name }}
{{- end -}}

{{/* What every pod runs as. */}}
{{- define "podSecurity" -}}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{/* What every container may do. */}}
{{- define "containerSecurity" -}}
imagePullPolicy: IfNotPresent
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
{{- end -}}
