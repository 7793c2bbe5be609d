{{/*
The pod of either component. Takes root, component, and ports: number by name.
Nothing here differs between the two but the settings, the ports and the sidecars.
*/}}
{{- define "streamgate.podTemplate" -}}
{{- $root := .root -}}
{{- $values := index $root.Values .component -}}
{{- /* The key is the api's alone; the consumer gets the authority, if there is one. */ -}}
{{- $tls := dict "api" (list "tls.crt" "tls.key") "consumer" ($root.Values.tls.hasCa | ternary (list "ca.crt") list) -}}
{{- $tlsFiles := $root.Values.tls.existingSecret | empty | ternary list (index $tls .component) -}}
{{- $selector := include "streamgate.selectorLabels" . | fromYaml -}}
metadata:
  labels:
    {{- merge $selector $values.podLabels $root.Values.commonLabels | toYaml | nindent 4 }}
  annotations:
    # Settings stand in the pod itself, so a changed one makes new pods anyway. The token stands
    # outside. Its text is not summed up here: a generated one is unknown wherever the cluster
    # cannot be asked, and the sum would change with every rendering.
    checksum/token: {{ $root.Values.token | toJson | sha256sum }}
    {{- with $values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "streamgate.serviceAccountName" . }}
  # Nothing calls Kubernetes. What IRSA and Pod Identity need is mounted by EKS itself.
  automountServiceAccountToken: false
  # Variables named after other Services are not for us.
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ add (int $root.Values.shutdownGraceSeconds) 10 }}
  securityContext:
    {{- toYaml $root.Values.podSecurityContext | nindent 4 }}
  {{- with $root.Values.image.pullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with $values.sidecars }}
  initContainers:
    {{- range . }}
    - {{- toYaml (merge (dict "restartPolicy" "Always") .) | nindent 6 }}
    {{- end }}
  {{- end }}
  containers:
    - name: {{ .component }}
      image: {{ include "streamgate.image" . | quote }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      args: [{{ .component }}]
      securityContext:
        {{- toYaml $root.Values.securityContext | nindent 8 }}
      env:
        {{- range $name, $value := include "streamgate.settings" . | fromYaml }}
        {{- if $value }}
        - name: {{ $name }}
          value: {{ $value | quote }}
        {{- end }}
        {{- end }}
        {{- range $name, $value := $values.env }}
        - name: {{ $name }}
          value: {{ $value | quote }}
        {{- end }}
        {{- with $values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        {{- range $name, $port := .ports }}
        - name: {{ $name }}
          containerPort: {{ $port }}
        {{- end }}
      livenessProbe:
        httpGet: { path: /healthz, port: http }
        {{- toYaml $root.Values.livenessProbe | nindent 8 }}
      readinessProbe:
        httpGet: { path: /readyz, port: http }
        {{- toYaml $root.Values.readinessProbe | nindent 8 }}
      resources:
        {{- toYaml $values.resources | nindent 8 }}
      volumeMounts:
        - name: token
          mountPath: /etc/streamgate
          readOnly: true
        {{- if $tlsFiles }}
        - name: tls
          mountPath: /etc/streamgate-tls
          readOnly: true
        {{- end }}
        {{- with $values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - name: token
      secret:
        secretName: {{ include "streamgate.tokenSecret" $root }}
        # Root owns the file; the pod's group reads it.
        defaultMode: 0440
        items:
          - key: {{ $root.Values.token.key }}
            path: token
    {{- if $tlsFiles }}
    - name: tls
      secret:
        secretName: {{ $root.Values.tls.existingSecret }}
        defaultMode: 0440
        items:
          {{- range $tlsFiles }}
          - key: {{ . }}
            path: {{ . }}
          {{- end }}
    {{- end }}
    {{- with $values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  topologySpreadConstraints:
    {{- if $values.topologySpreadConstraints }}
    {{- toYaml $values.topologySpreadConstraints | nindent 4 }}
    {{- else }}
    {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
    - topologyKey: {{ . }}
      maxSkew: 1
      # Wished, not demanded: a small cluster runs it too.
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- toYaml (include "streamgate.selectorLabels" $ | fromYaml) | nindent 10 }}
    {{- end }}
    {{- end }}
{{- end -}}
