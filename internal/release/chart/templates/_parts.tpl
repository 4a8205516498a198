{{- define "quorate.name" -}}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{- end }}

{{- define "quorate.selector" -}}
app.kubernetes.io/name: quorate
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "quorate.labels" -}}
{{ include "quorate.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 }}
{{- end }}

{{- define "quorate.domain" -}}
{{ include "quorate.name" . }}-replicas.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}
{{- end }}

{{/* The founders, as ID=ADDRESS or as ADDRESS. */}}
{{- define "quorate.founders" -}}
{{- $root := .root -}}
{{- range $i := until (int $root.Values.replicas) -}}
{{- if $i }},{{ end -}}
{{- if $.ids }}{{ include "quorate.name" $root }}-{{ $i }}={{ end -}}
{{ include "quorate.name" $root }}-{{ $i }}.{{ include "quorate.domain" $root }}:{{ $root.Values.ports.raft }}
{{- end -}}
{{- end }}

{{- define "quorate.pods" -}}
{{- $v := .root.Values -}}
{{- $name := printf "%s%s" (include "quorate.name" .root) .suffix -}}
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: {{ $name }}
  labels:
    {{- include "quorate.labels" .root | nindent 4 }}
spec:
  serviceName: {{ include "quorate.name" .root }}-replicas
  replicas: {{ .replicas }}
  # A cluster is founded by all at once, and none is ready before.
  podManagementPolicy: Parallel
  updateStrategy: { type: RollingUpdate }
  minReadySeconds: 5
  persistentVolumeClaimRetentionPolicy: { whenDeleted: Retain, whenScaled: Retain }
  selector:
    matchLabels:
      {{- include "quorate.selector" .root | nindent 6 }}
      quorate/role: {{ .role }}
  template:
    metadata:
      labels:
        {{- include "quorate.labels" .root | nindent 8 }}
        quorate/role: {{ .role }}
      {{- with $v.podAnnotations }}
      annotations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      automountServiceAccountToken: false
      serviceAccountName: {{ include "quorate.name" .root }}
      enableServiceLinks: false
      terminationGracePeriodSeconds: {{ $v.terminationGracePeriodSeconds }}
      {{- with $v.imagePullSecrets }}
      imagePullSecrets:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      securityContext:
        runAsNonRoot: true
        runAsUser: 65532
        runAsGroup: 65532
        fsGroup: 65532
        fsGroupChangePolicy: OnRootMismatch
        seccompProfile: { type: RuntimeDefault }
      affinity:
        podAntiAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            - topologyKey: kubernetes.io/hostname
              labelSelector:
                matchLabels:
                  {{- include "quorate.selector" .root | nindent 18 }}
      topologySpreadConstraints:
        - topologyKey: topology.kubernetes.io/zone
          maxSkew: 1
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels:
              {{- include "quorate.selector" .root | nindent 14 }}
      {{- with $v.nodeSelector }}
      nodeSelector:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $v.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      containers:
        - name: storage-controller
          image: {{ printf "%s:%s" $v.image.repository (default .root.Chart.AppVersion $v.image.tag) | quote }}
          imagePullPolicy: {{ $v.image.pullPolicy }}
          args:
            {{- include "quorate.args" . | nindent 12 }}
          env:
            - name: POD_NAME
              valueFrom: { fieldRef: { fieldPath: metadata.name } }
            - name: POD_IP
              valueFrom: { fieldRef: { fieldPath: status.podIP } }
            - name: RUST_LOG
              value: {{ $v.logLevel | quote }}
          {{- with $v.tokensSecret }}
          envFrom:
            - secretRef: { name: {{ . }} }
          {{- end }}
          ports:
            - { name: http, containerPort: {{ $v.ports.http }} }
            - { name: raft, containerPort: {{ $v.ports.raft }} }
          startupProbe:
            httpGet: { path: /status, port: http, scheme: {{ include "quorate.scheme" .root | upper }} }
            periodSeconds: 2
            failureThreshold: 300
          livenessProbe:
            httpGet: { path: /live, port: http, scheme: {{ include "quorate.scheme" .root | upper }} }
            periodSeconds: 5
            failureThreshold: 10
            timeoutSeconds: 5
          readinessProbe:
            httpGet: { path: /ready, port: http, scheme: {{ include "quorate.scheme" .root | upper }} }
            periodSeconds: 2
            failureThreshold: 2
            timeoutSeconds: 2
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: { drop: [ALL] }
          resources:
            {{- toYaml $v.resources | nindent 12 }}
          volumeMounts:
            - { name: state, mountPath: /var/lib/quorate }
            {{- if $v.peersSecret }}
            - { name: peers, mountPath: /etc/quorate/peers, readOnly: true }
            {{- end }}
            {{- if $v.httpsSecret }}
            - { name: https, mountPath: /etc/quorate/https, readOnly: true }
            {{- end }}
      volumes:
        {{- if $v.peersSecret }}
        - name: peers
          secret: { secretName: {{ $v.peersSecret }}, defaultMode: 0440 }
        {{- end }}
        {{- if $v.httpsSecret }}
        - name: https
          secret: { secretName: {{ $v.httpsSecret }}, defaultMode: 0440 }
        {{- end }}
  volumeClaimTemplates:
    - metadata:
        name: state
      spec:
        accessModes: [ReadWriteOnce]
        {{- with $v.storage.className }}
        storageClassName: {{ . }}
        {{- end }}
        resources: { requests: { storage: {{ $v.storage.size }} } }
{{- end }}

{{- define "quorate.scheme" -}}{{ ternary "https" "http" (ne .Values.httpsSecret "") }}{{- end }}

{{- define "quorate.args" -}}
{{- $v := .root.Values -}}
- --data-dir=/var/lib/quorate/state
- --server-id=$(POD_NAME)
{{- if $v.httpsSecret }}
- --listen-https=$(POD_IP):{{ $v.ports.http }}
- --ssl-cert-file=/etc/quorate/https/tls.crt
- --ssl-key-file=/etc/quorate/https/tls.key
{{- else }}
- --listen=$(POD_IP):{{ $v.ports.http }}
{{- end }}
- --address-for-peers={{ include "quorate.scheme" .root }}://$(POD_NAME).{{ include "quorate.domain" .root }}:{{ $v.ports.http }}/
- --raft-listen=$(POD_IP):{{ $v.ports.raft }}
- --raft-advertise=$(POD_NAME).{{ include "quorate.domain" .root }}:{{ $v.ports.raft }}
{{- if eq .role "newcomer" }}
- --join={{ include "quorate.founders" (dict "root" .root "ids" false) }}
{{- else if gt (int $v.replicas) 1 }}
- --members={{ include "quorate.founders" (dict "root" .root "ids" true) }}
{{- end }}
{{- if $v.peersSecret }}
- --raft-tls-cert=/etc/quorate/peers/$(POD_NAME).crt
- --raft-tls-key=/etc/quorate/peers/$(POD_NAME).key
- --raft-tls-ca=/etc/quorate/peers/ca.crt
{{- else if $v.insecurePeers }}
- --insecure-peers
{{- else }}
{{- fail "peersSecret is needed: a secret with the certificates of the replicas (docs/guides/kubernetes.md), or insecurePeers for a network that only they can reach" }}
{{- end }}
{{- with $v.controlPlaneURL }}
- --control-plane-url={{ . }}
{{- end }}
{{- if $v.dev }}
- --dev
{{- else }}
{{- $_ := required "controlPlaneURL is needed unless dev is set" $v.controlPlaneURL }}
{{- $_ := required "tokensSecret is needed unless dev is set" $v.tokensSecret }}
{{- end }}
{{- range $v.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end }}
