{{/* Name of the application in labels. */}}
{{- define "lockstep.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Name of the objects: the release, with the chart's name unless it is in there. */}}
{{- define "lockstep.fullname" -}}
{{- $name := include "lockstep.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "lockstep.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "lockstep.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name: name the ServiceAccount to use, or set serviceAccount.create" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* Labels by which the pods are found; they can never change. */}}
{{- define "lockstep.selectorLabels" -}}
app.kubernetes.io/name: {{ include "lockstep.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "lockstep.labels" -}}
{{ include "lockstep.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end -}}

{{- define "lockstep.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{/* Flags of run, and of uninstall. */}}
{{- define "lockstep.flags" -}}
- --leader-election={{ .Values.leaderElection }}
- {{ printf "--admin-address=%s:8080" .Values.listenAddress | quote }}
- --workers={{ .Values.workers }}
- --rollout-workers={{ .Values.rolloutWorkers }}
- --max-concurrent-rollouts={{ .Values.maxConcurrentRollouts }}
- --max-concurrent-rollouts-per-namespace={{ .Values.maxConcurrentRolloutsPerNamespace }}
- --default-refresh-interval={{ .Values.defaultRefreshInterval }}
- --staleness-budget={{ .Values.stalenessBudget }}
- --session-store={{ .Values.sessionStore }}
{{- if .Values.revokeUnansweredLeases }}
- --revoke-unanswered-leases
{{- end }}
{{- if .Values.allowInsecureTLS }}
- --allow-insecure-tls
{{- end }}
{{- range .Values.allowedVaultAddresses }}
- {{ printf "--allowed-vault-addresses=%s" . | quote }}
{{- end }}
- --log-format={{ .Values.log.format }}
{{- with .Values.log.filter }}
- {{ printf "--log-filter=%s" . | quote }}
{{- end }}
{{- range .Values.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end -}}
