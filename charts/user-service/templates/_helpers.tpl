{{/* The labels of a role. Call with (list $ "user-store"). */}}
{{- define "labels" -}}
{{- $root := first . -}}
{{ include "selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: fusebox-sample
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
{{- end -}}

{{/* The labels by which a role's pods are found. */}}
{{- define "selector" -}}
app.kubernetes.io/name: {{ last . }}
app.kubernetes.io/instance: {{ (first .).Release.Name }}
{{- end -}}

{{/* What every role's Deployment has: rolls out without a gap. */}}
{{- define "rollout" -}}
strategy:
  type: RollingUpdate
  rollingUpdate: { maxSurge: 1, maxUnavailable: 0 }
selector:
  matchLabels:
    {{- include "selector" . | nindent 4 }}
{{- end -}}

{{/* What every role's pod has beside its container. */}}
{{- define "pod" -}}
{{- $root := first . -}}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: {{ add $root.Values.lifecycle.drain $root.Values.lifecycle.grace 5 }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  # Mounted Secrets are this group's to read.
  fsGroup: 65532
  seccompProfile: { type: RuntimeDefault }
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "selector" . | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
{{- end -}}

{{/* What every role's container has beside its role. */}}
{{- define "container" -}}
image: {{ .Values.image.repository }}:{{ .Values.image.tag }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
{{- end -}}

{{/* The environment of every role. */}}
{{- define "env.process" -}}
- { name: POLICY_WAIT, value: {{ .Values.lifecycle.policyWait | quote }} }
- { name: DRAIN, value: {{ .Values.lifecycle.drain | quote }} }
- { name: GRACE, value: {{ .Values.lifecycle.grace | quote }} }
- { name: RUST_LOG, value: {{ .Values.log.level | quote }} }
{{- end -}}

{{/* The environment of a role under policy. Call with (list $ "name of the ResilientService"). */}}
{{- define "env.fusebox" -}}
{{- $root := first . -}}
- { name: FUSEBOX_SERVICE, value: "{{ $root.Release.Namespace }}/{{ last . }}" }
- { name: FUSEBOX_CLUSTER, value: {{ $root.Values.fusebox.cluster | quote }} }
- { name: FUSEBOX_ETCD, value: {{ $root.Values.fusebox.etcd | quote }} }
{{- with $root.Values.fusebox.etcdUserSecret }}
- { name: FUSEBOX_ETCD_USER, valueFrom: { secretKeyRef: { name: {{ . }}, key: username } } }
- { name: FUSEBOX_ETCD_PASSWORD_FILE, value: /etc/fusebox/etcd-user/password }
{{- end }}
{{- if $root.Values.fusebox.etcdCaConfigMap }}
- { name: FUSEBOX_ETCD_CA_FILE, value: /etc/fusebox/etcd-ca/ca.crt }
{{- end }}
{{- if $root.Values.fusebox.etcdClientCertSecret }}
- { name: FUSEBOX_ETCD_CERT_FILE, value: /etc/fusebox/etcd-cert/tls.crt }
- { name: FUSEBOX_ETCD_KEY_FILE, value: /etc/fusebox/etcd-cert/tls.key }
{{- end }}
- { name: POD_NAME, valueFrom: { fieldRef: { fieldPath: metadata.name } } }
- { name: POD_UID, valueFrom: { fieldRef: { fieldPath: metadata.uid } } }
- { name: POD_IP, valueFrom: { fieldRef: { fieldPath: status.podIP } } }
{{- end -}}

{{/* The files that the environment of a role under policy names. */}}
{{- define "mounts.fusebox" -}}
{{- with .Values.fusebox.etcdUserSecret }}
- { name: etcd-user, mountPath: /etc/fusebox/etcd-user, readOnly: true }
{{- end }}
{{- with .Values.fusebox.etcdCaConfigMap }}
- { name: etcd-ca, mountPath: /etc/fusebox/etcd-ca, readOnly: true }
{{- end }}
{{- with .Values.fusebox.etcdClientCertSecret }}
- { name: etcd-cert, mountPath: /etc/fusebox/etcd-cert, readOnly: true }
{{- end }}
{{- end -}}

{{/* And where they come from. */}}
{{- define "volumes.fusebox" -}}
{{- with .Values.fusebox.etcdUserSecret }}
- { name: etcd-user, secret: { secretName: {{ . }}, defaultMode: 288, items: [{ key: password, path: password }] } }
{{- end }}
{{- with .Values.fusebox.etcdCaConfigMap }}
- { name: etcd-ca, configMap: { name: {{ . }} } }
{{- end }}
{{- with .Values.fusebox.etcdClientCertSecret }}
- { name: etcd-cert, secret: { secretName: {{ . }}, defaultMode: 288 } }
{{- end }}
{{- end -}}
