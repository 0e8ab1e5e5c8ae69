{{/* Names, labels, and what several objects say alike. */}}

{{- define "gateway.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "gateway.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "gateway.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "gateway.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Of objects without a namespace. */}}
{{- define "gateway.clusterName" -}}
{{- printf "%s:%s" .Release.Namespace (include "gateway.fullname" .) -}}
{{- end -}}

{{- define "gateway.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "gateway.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "gateway.selector" -}}
app.kubernetes.io/name: {{ include "gateway.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: gateway
{{- end -}}

{{- define "gateway.redisSelector" -}}
app.kubernetes.io/name: {{ include "gateway.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: redis
{{- end -}}

{{/* Every object's, but for its component. */}}
{{- define "gateway.labels" -}}
app.kubernetes.io/name: {{ include "gateway.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: phoenixflight
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "gateway.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "gateway.spiffeId" -}}
{{- default (printf "spiffe://%s/ns/%s/sa/%s" .Values.trustDomain .Release.Namespace (include "gateway.serviceAccount" .)) .Values.identity.spiffeId -}}
{{- end -}}

{{/* The Secret with the gateway's certificate. */}}
{{- define "gateway.identitySecret" -}}
{{- default (printf "%s-identity" (include "gateway.fullname" .)) .Values.identity.secretName -}}
{{- end -}}

{{/* The volume with the gateway's certificate, key and roots, without its name. */}}
{{- define "gateway.identityVolume" -}}
{{- if eq .Values.identity.source "csi" -}}
csi:
  driver: {{ .Values.identity.csi.driver }}
  readOnly: true
  {{- with .Values.identity.csi.attributes }}
  volumeAttributes: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- else -}}
secret:
  secretName: {{ include "gateway.identitySecret" . }}
  defaultMode: 0440
{{- end -}}
{{- end -}}

{{/* Whole seconds of a duration such as 500ms, 30s, 5m or 1h, rounded up. */}}
{{- define "gateway.seconds" -}}
{{- $units := dict "ms" 0.001 "s" 1.0 "m" 60.0 "h" 3600.0 -}}
{{- mulf (regexFind "^[0-9.]+" . | float64) (get $units (regexFind "[a-z]+$" .)) | ceil | int -}}
{{- end -}}

{{/* What asks the admin port; takes `root` and `live`. */}}
{{- define "gateway.probe" -}}
{{- $admin := .root.Values.admin -}}
{{- if $admin.exposed -}}
httpGet:
  path: {{ ternary "/healthz" "/readyz" .live }}
  port: admin
  scheme: {{ ternary "HTTPS" "HTTP" $admin.tls }}
{{- else -}}
exec:
  command:
    - phoenixflight
    - health
    {{- if .live }}
    - --live
    {{- end }}
    - --admin
    - http://127.0.0.1:{{ $admin.port }}
{{- end -}}
{{- end -}}

{{/* What values cannot say alone. */}}
{{- define "gateway.check" -}}
{{- $values := .Values -}}
{{- if and $values.admin.exposed (not (or $values.admin.allow $values.admin.tokenSecret.name)) -}}
{{- fail "admin.exposed: callers have to prove who they are: give admin.allow (principals), admin.tokenSecret.name, or both" -}}
{{- end -}}
{{- if and $values.admin.exposed $values.admin.allow (not $values.admin.tls) -}}
{{- fail "admin.allow: callers are known by their certificates, which takes admin.tls: true" -}}
{{- end -}}
{{- if and (ne $values.monitoring.monitor "none") (not $values.admin.exposed) -}}
{{- fail "monitoring.monitor: Prometheus reaches the admin port only with admin.exposed: true" -}}
{{- end -}}
{{- if and (ne $values.monitoring.monitor "none") $values.admin.tls (eq $values.identity.source "csi") (not $values.monitoring.tlsConfig) -}}
{{- fail "monitoring.tlsConfig: with identity.source csi there is no Secret that Prometheus could take the roots from" -}}
{{- end -}}
{{- if and (eq $values.identity.source "secret") (not $values.identity.secretName) -}}
{{- fail "identity.secretName: identity.source secret needs the name of the Secret" -}}
{{- end -}}
{{- if and $values.redis.enabled $values.redis.url -}}
{{- fail "redis.url: there is one of this release's own (redis.enabled); give one of the two" -}}
{{- end -}}
{{- if and (gt (int (default 1 $values.gateway.workers)) 1) (not (or $values.redis.enabled $values.redis.url)) -}}
{{- fail "gateway.workers: workers share signatures, conversations and registrations in a Redis: give redis.url or redis.enabled" -}}
{{- end -}}
{{- if and $values.autoscaling.enabled (ne $values.kind "Deployment") -}}
{{- fail "autoscaling.enabled: a DaemonSet has as many pods as there are nodes" -}}
{{- end -}}
{{- if and $values.autoscaling.enabled (not (or $values.autoscaling.cpuUtilization $values.autoscaling.inFlight)) -}}
{{- fail "autoscaling: give cpuUtilization, inFlight, or both" -}}
{{- end -}}
{{- end -}}
