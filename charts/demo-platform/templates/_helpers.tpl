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

{{/* etcd's users by whose Secret it is, as JSON; a namespace called root or operator is refused by the schema. */}}
{{- define "etcdUsers" -}}
{{- $users := dict "root" "root" "operator" (printf "fusebox.%s" .Values.etcd.access.cluster) -}}
{{- range .Values.etcd.access.namespaces -}}
{{- $_ := set $users . (printf "fusebox.%s.%s" $.Values.etcd.access.cluster .) -}}
{{- end -}}
{{- toJson $users -}}
{{- end -}}
