{{- define "fullname" -}}
{{ printf "%s-fusebox" .Release.Name | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{- define "selector" -}}
app.kubernetes.io/name: fusebox-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "labels" -}}
{{ include "selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: fusebox
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}
