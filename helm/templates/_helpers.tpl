{{/*
Names, labels, the image, and the settings of each container as environment variables.
The pods themselves are in _pod.tpl, what is refused in checks.yaml.
*/}}

{{- define "streamgate.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 53 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 53 characters, so that the longest suffix still fits in a label's 63. */}}
{{- define "streamgate.fullname" -}}
{{- $name := include "streamgate.name" . -}}
{{- $whole := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- default $whole .Values.fullnameOverride | trunc 53 | trimSuffix "-" -}}
{{- end -}}

{{/* What never changes: selectors cannot be changed after the first install. Takes root, component. */}}
{{- define "streamgate.selectorLabels" -}}
app.kubernetes.io/name: {{ include "streamgate.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* For metadata of objects. Takes root, component, and extra: labels of this object. The chart's own win. */}}
{{- define "streamgate.labels" -}}
{{- $own := dict
  "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_")
  "app.kubernetes.io/version" .root.Chart.AppVersion
  "app.kubernetes.io/managed-by" .root.Release.Service -}}
{{- merge (include "streamgate.selectorLabels" . | fromYaml) $own (.extra | default dict) .root.Values.commonLabels | toYaml -}}
{{- end -}}

{{/* An application's own api has an image of its own. Takes root, component. */}}
{{- define "streamgate.image" -}}
{{- $own := and (eq .component "api") (not (empty .root.Values.api.image.repository)) -}}
{{- with $own | ternary .root.Values.api.image .root.Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $.root.Chart.AppVersion .tag }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Takes root, component. */}}
{{- define "streamgate.serviceAccountName" -}}
{{- $own := printf "%s-%s" (include "streamgate.fullname" .root) .component -}}
{{- default $own (index .root.Values .component).serviceAccount.name -}}
{{- end -}}

{{- define "streamgate.tokenSecret" -}}
{{- default (printf "%s-token" (include "streamgate.fullname" .)) .Values.token.existingSecret -}}
{{- end -}}

{{- define "streamgate.anyAddress" -}}
{{- .Values.ipv6 | ternary "[::]" "0.0.0.0" -}}
{{- end -}}

{{/*
The variables that have a value of the chart, by name; empty ones are left out. Takes root, component.
AWS_REGION is set for the consumer too: EKS would put the cluster's region there, and the
consumer refuses one that is not the stream's.
*/}}
{{- define "streamgate.settings" -}}
{{- $values := .root.Values -}}
{{- $any := include "streamgate.anyAddress" .root -}}
TABLE_NAME: {{ $values.tableName | quote }}
AWS_REGION: {{ $values.region | quote }}
CONSUMER_NAME: {{ $values.consumerName | quote }}
TABLE_PARTITION_KEY: {{ $values.tablePartitionKey | quote }}
TABLE_SORT_KEY: {{ $values.tableSortKey | quote }}
API_TOKEN_FILE: /etc/streamgate/token
SHUTDOWN_GRACE: {{ int $values.shutdownGraceSeconds }}s
LOG_FORMAT: {{ $values.logFormat | quote }}
RUST_LOG: {{ $values.logFilter | quote }}
{{- if eq .component "api" }}
LISTEN: {{ printf "%s:8080" $any | quote }}
PRIVATE_LISTEN: {{ printf "%s:8081" $any | quote }}
{{- if $values.tls.existingSecret }}
TLS_CERT_FILE: /etc/streamgate-tls/tls.crt
TLS_KEY_FILE: /etc/streamgate-tls/tls.key
{{- end }}
{{- else }}
LISTEN: {{ printf "%s:9090" $any | quote }}
API_URL: {{ $values.tls.existingSecret | empty | ternary "http" "https" }}://{{ include "streamgate.fullname" .root }}-private:8081
{{- if and $values.tls.existingSecret $values.tls.hasCa }}
API_CA_FILE: /etc/streamgate-tls/ca.crt
{{- end }}
{{- with $values.consumer }}
STREAM_ARN: {{ .streamArn | quote }}
HANDLER: {{ .handler | quote }}
HANDLER_TIMEOUT: {{ int .handlerTimeoutSeconds }}s
STARTING_POSITION: {{ .startingPosition | quote }}
STARTING_POSITION_TIMESTAMP: {{ .startingPositionTimestamp | quote }}
BATCH_SIZE: {{ int .batchSize | quote }}
MAXIMUM_BATCHING_WINDOW_IN_SECONDS: {{ int .maximumBatchingWindowInSeconds | quote }}
POLL_INTERVAL_MIN: {{ .pollIntervalMin | quote }}
POLL_INTERVAL_MAX: {{ .pollIntervalMax | quote }}
FAILOVER_TIME: {{ .failoverTime | quote }}
CHECKPOINT_INTERVAL: {{ .checkpointInterval | quote }}
MAX_BUFFERED_BYTES: {{ .maxBufferedBytes | quote }}
{{- end }}
{{- end }}
{{- end -}}
