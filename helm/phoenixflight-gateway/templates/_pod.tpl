{{/* The pod, whoever makes it. */}}

{{- define "gateway.pod" -}}
metadata:
  labels:
    {{- include "gateway.labels" . | nindent 4 }}
    app.kubernetes.io/component: gateway
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.podAnnotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "gateway.serviceAccount" . }}
  automountServiceAccountToken: {{ .Values.kubernetes.enabled }}
  enableServiceLinks: false
  {{- with .Values.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  securityContext: {{- toYaml .Values.podSecurityContext | nindent 4 }}
  terminationGracePeriodSeconds: {{ add (include "gateway.seconds" .Values.drain.delay) (include "gateway.seconds" .Values.drain.timeout) 10 }}
  {{- with .Values.topologySpread }}
  topologySpreadConstraints:
    {{- range . }}
    - labelSelector:
        matchLabels: {{- include "gateway.selector" $ | nindent 10 }}
      {{- toYaml . | nindent 6 }}
    {{- end }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity: {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: gateway
      image: {{ include "gateway.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [run, --config, /etc/phoenixflight/config/gateway.yaml]
      securityContext: {{- toYaml .Values.securityContext | nindent 8 }}
      {{- with .Values.extraEnv }}
      env: {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        {{- range $name, $given := .Values.listeners }}
        - {name: {{ $name }}, containerPort: {{ int $given.port }}, protocol: TCP}
        {{- end }}
        {{- if .Values.admin.exposed }}
        - {name: admin, containerPort: {{ .Values.admin.port }}, protocol: TCP}
        {{- end }}
      {{- $delay := include "gateway.seconds" .Values.drain.delay | int }}
      {{- if $delay }}
      lifecycle:
        preStop:
          sleep: {seconds: {{ $delay }}}
      {{- end }}
      startupProbe:
        {{- include "gateway.probe" (dict "root" . "live" true) | nindent 8 }}
        {{- toYaml .Values.probes.startup | nindent 8 }}
      livenessProbe:
        {{- include "gateway.probe" (dict "root" . "live" true) | nindent 8 }}
        {{- toYaml .Values.probes.liveness | nindent 8 }}
      readinessProbe:
        {{- include "gateway.probe" (dict "root" . "live" false) | nindent 8 }}
        {{- toYaml .Values.probes.readiness | nindent 8 }}
      resources: {{- toYaml .Values.resources | nindent 8 }}
      volumeMounts:
        - {name: settings, mountPath: /etc/phoenixflight/config, readOnly: true}
        - {name: policies, mountPath: /etc/phoenixflight/policies, readOnly: true}
        - {name: members, mountPath: /etc/phoenixflight/members, readOnly: true}
        - {name: identity, mountPath: /etc/phoenixflight/identity, readOnly: true}
        {{- if .Values.connectAuthority.secretName }}
        - {name: connect-authority, mountPath: /etc/phoenixflight/connect, readOnly: true}
        {{- end }}
        {{- if .Values.admin.tokenSecret.name }}
        - {name: admin-token, mountPath: /etc/phoenixflight/admin, readOnly: true}
        {{- end }}
        {{- if .Values.keys.configMap }}
        - {name: keys, mountPath: /etc/phoenixflight/keys, readOnly: true}
        {{- end }}
        - {name: data, mountPath: /var/lib/phoenixflight}
        - {name: tmp, mountPath: /tmp}
        {{- with .Values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    {{- with .Values.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    - name: settings
      {{- if include "gateway.settingsAreSecret" . }}
      secret: {secretName: {{ include "gateway.settingsName" . }}, defaultMode: 0440}
      {{- else }}
      configMap: {name: {{ include "gateway.settingsName" . }}}
      {{- end }}
    - name: policies
      configMap: {name: {{ default (printf "%s-policies" (include "gateway.fullname" .)) .Values.policies.existingConfigMap }}}
    - name: members
      configMap: {name: {{ default (printf "%s-members" (include "gateway.fullname" .)) .Values.members.existingConfigMap }}}
    - name: identity
      {{- include "gateway.identityVolume" . | nindent 6 }}
    {{- with .Values.connectAuthority.secretName }}
    - name: connect-authority
      secret: {secretName: {{ . }}, defaultMode: 0440}
    {{- end }}
    {{- with .Values.admin.tokenSecret.name }}
    - name: admin-token
      secret: {secretName: {{ . }}, defaultMode: 0440}
    {{- end }}
    {{- with .Values.keys.configMap }}
    - name: keys
      configMap: {name: {{ . }}}
    {{- end }}
    - name: data
      {{- if .Values.data.volume }}
      {{- toYaml .Values.data.volume | nindent 6 }}
      {{- else }}
      emptyDir: {sizeLimit: {{ .Values.data.sizeLimit }}}
      {{- end }}
    # For private keys on their way into OpenSSL, and workers' sockets: never on a disk.
    - name: tmp
      emptyDir: {medium: Memory, sizeLimit: 16Mi}
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}
