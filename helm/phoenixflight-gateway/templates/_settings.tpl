{{/* The Gateway document: what values say, and where the pod's volumes are. */}}

{{- define "gateway.listeners" -}}
{{- $found := list -}}
{{- range $name, $given := .Values.listeners -}}
{{- range $family := $.Values.ipFamilies -}}
{{- $one := pick $given "tls" "clientAuth" "assumedPrincipal" -}}
{{- $six := eq $family "IPv6" -}}
{{- $_ := set $one "name" (ternary (printf "%s-v6" $name) $name $six) -}}
{{- $_ := set $one "address" (printf "%s:%d" (ternary "[::]" "0.0.0.0" $six) (int $given.port)) -}}
{{- $found = append $found $one -}}
{{- end -}}
{{- end -}}
{{- toYaml $found -}}
{{- end -}}

{{- define "gateway.admin" -}}
{{- if .Values.admin.exposed -}}
address: {{ printf "%s:%d" (ternary "0.0.0.0" "[::]" (has "IPv4" .Values.ipFamilies)) (int .Values.admin.port) | quote }}
tls: {{ .Values.admin.tls }}
{{- with .Values.admin.allow }}
allow: {{- toYaml . | nindent 2 }}
{{- end }}
{{- if .Values.admin.tokenSecret.name }}
tokenFile: /etc/phoenixflight/admin/{{ .Values.admin.tokenSecret.key }}
{{- end }}
{{- else -}}
address: 127.0.0.1:{{ .Values.admin.port }}
{{- end -}}
{{- end -}}

{{- define "gateway.redisUrl" -}}
{{- if .Values.redis.enabled -}}
redis://{{ include "gateway.fullname" . }}-redis:6379/0
{{- else -}}
{{- .Values.redis.url -}}
{{- end -}}
{{- end -}}

{{- define "gateway.settings" -}}
{{- $spec := deepCopy .Values.gateway -}}
{{- $files := .Values.identity.files -}}
{{- $folder := "/etc/phoenixflight/identity" -}}
{{- $identity := dict "certificate" (printf "%s/%s" $folder $files.certificate) "key" (printf "%s/%s" $folder $files.key) "trustBundle" (printf "%s/%s" $folder $files.trustBundle) -}}
{{- with $files.crl -}}
{{- $lists := list -}}
{{- range . -}}{{- $lists = append $lists (printf "%s/%s" $folder .) -}}{{- end -}}
{{- $_ := set $identity "crl" $lists -}}
{{- end -}}
{{- $_ := set $spec "identity" $identity -}}
{{- with .Values.connectAuthority -}}
{{- if .secretName -}}
{{- $_ := set $spec "connectAuthority" (dict "certificate" (printf "/etc/phoenixflight/connect/%s" .certificate) "key" (printf "/etc/phoenixflight/connect/%s" .key)) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $spec "listeners" (include "gateway.listeners" . | fromYamlArray) -}}
{{- $_ := set $spec "admin" (include "gateway.admin" . | fromYaml) -}}
{{- $_ := set $spec "policies" "/etc/phoenixflight/policies" -}}
{{- $_ := set $spec "members" "/etc/phoenixflight/members/agents.yaml" -}}
{{- if .Values.keys.configMap -}}
{{- $_ := set $spec "keys" (printf "/etc/phoenixflight/keys/%s" .Values.keys.file) -}}
{{- end -}}
{{- if .Values.kubernetes.enabled -}}
{{- $_ := set $spec "kubernetes" (dict "namespaces" .Values.kubernetes.namespaces "preferIpFamily" .Values.kubernetes.preferIpFamily) -}}
{{- end -}}
{{- with include "gateway.redisUrl" . -}}
{{- $_ := set $spec "redis" (dict "url" .) -}}
{{- end -}}
{{- /* The delay is over when SIGTERM comes: the pod's preStop has waited for it. */ -}}
{{- $limits := merge (dict "drainDelay" "0s" "drainTimeout" .Values.drain.timeout) (default dict $spec.limits) -}}
{{- $_ := set $spec "limits" $limits -}}
apiVersion: phoenixflight.io/v1
kind: Gateway
metadata: {name: {{ .Release.Name }}}
spec: {{- toYaml $spec | nindent 2 }}
{{- end -}}

{{/* With a password in it, the settings are a Secret. */}}
{{- define "gateway.settingsAreSecret" -}}
{{- if contains "@" .Values.redis.url }}true{{ end -}}
{{- end -}}

{{/* Settings are read when a process starts: others have another name, so that each pod has those that it was made with, and a rollout brings the new
ones, pod by pod. */}}
{{- define "gateway.settingsName" -}}
{{- printf "%s-settings-%s" (include "gateway.fullname" .) (include "gateway.settings" . | sha256sum | trunc 8) -}}
{{- end -}}
