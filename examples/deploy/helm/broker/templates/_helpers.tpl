{{- define "broker.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "broker.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "broker.labels" -}}
{{ include "broker.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "broker.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "broker.name" .) -}}
{{- end -}}

{{- /* An image by its digest where there is one. Takes a list: the image, and the tag that it has by default. */ -}}
{{- define "broker.image" -}}
{{- $image := index . 0 -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository ($image.tag | default (index . 1)) -}}
{{- end -}}
{{- end -}}

{{- define "broker.listen" -}}
{{- if contains ":" .address -}}
{{- printf "[%s]:%v" .address .port -}}
{{- else -}}
{{- printf "%s:%v" .address .port -}}
{{- end -}}
{{- end -}}

{{- /* What the schema of the values cannot say, in sentences. */ -}}
{{- define "broker.refusals" -}}
{{- $state := dig "state" "store" "sqlite" .Values.settings -}}
{{- if and (gt (int .Values.replicas) 1) (has $state (list "sqlite" "memory")) -}}
{{- fail (printf "replicas: %v brokers cannot share state.store: %s, so a one-time token could be used once at each" .Values.replicas $state) -}}
{{- end -}}
{{- if eq $state "memory" -}}
{{- fail "settings.state.store: memory forgets what was spent whenever the pod restarts" -}}
{{- end -}}
{{- $isBehindProxy := dig "http" "is_behind_proxy" false .Values.settings -}}
{{- if and .Values.http.enabled (not .Values.http.tlsSecret) (not $isBehindProxy) -}}
{{- fail "http.tlsSecret: the HTTP face needs a certificate, or settings.http.is_behind_proxy" -}}
{{- end -}}
{{- if and .Values.http.tlsSecret $isBehindProxy -}}
{{- fail "http.tlsSecret: has no use behind a proxy that terminates TLS (settings.http.is_behind_proxy)" -}}
{{- end -}}
{{- if and (or .Values.grpc.enabled .Values.streams.enabled) (not .Values.grpc.tlsSecret) -}}
{{- fail "grpc.tlsSecret: gRPC needs a certificate" -}}
{{- end -}}
{{- if not (or .Values.grpc.enabled .Values.http.enabled) -}}
{{- fail "http.enabled, grpc.enabled: both faces are off" -}}
{{- end -}}
{{- if and .Values.metrics.enabled (not (and .Values.metrics.tlsSecret .Values.metrics.clientCaSecret)) -}}
{{- fail "metrics: needs tlsSecret and clientCaSecret, since whoever reads them has to be known" -}}
{{- end -}}
{{- end -}}

{{- /* broker.yaml: what the operator set, and over it what follows from how the pod is made. */ -}}
{{- define "broker.settings" -}}
{{- include "broker.refusals" . -}}
{{- $address := .Values.listenAddress -}}
{{- $listen := dict "admin" "127.0.0.1:9443" "http" nil "grpc" nil -}}
{{- $own := dict "listen" $listen "drain_delay" (printf "%vs" .Values.drainSeconds) -}}
{{- if .Values.http.enabled -}}
{{- $_ := set $listen "http" (include "broker.listen" (dict "address" $address "port" .Values.http.port)) -}}
{{- if .Values.http.tlsSecret -}}
{{- $_ := set $own "http" (dict "tls" (dict "cert_file" "/etc/broker/tls/http/tls.crt" "key_file" "/etc/broker/tls/http/tls.key")) -}}
{{- end -}}
{{- end -}}
{{- if .Values.grpc.enabled -}}
{{- $_ := set $listen "grpc" (include "broker.listen" (dict "address" $address "port" .Values.grpc.port)) -}}
{{- end -}}
{{- if .Values.streams.enabled -}}
{{- $_ := set $listen "streams" (include "broker.listen" (dict "address" $address "port" .Values.streams.port)) -}}
{{- end -}}
{{- if or .Values.grpc.enabled .Values.streams.enabled -}}
{{- $tls := dict "cert_file" "/etc/broker/tls/grpc/tls.crt" "key_file" "/etc/broker/tls/grpc/tls.key" -}}
{{- if .Values.grpc.clientCaSecret -}}
{{- $_ := set $tls "client_ca_file" "/etc/broker/tls/grpc-clients/ca.crt" -}}
{{- end -}}
{{- $_ := set $own "grpc" (dict "tls" $tls) -}}
{{- end -}}
{{- $auth := dict "method" "kubernetes" "role" .Values.vault.role "mount" .Values.vault.mount "jwt_file" "/var/run/secrets/vault/token" -}}
{{- $vault := dict "auth" $auth -}}
{{- if .Values.vault.rotatorRole -}}
{{- if not (dig "keys" "vault" "record" nil .Values.settings) -}}
{{- fail "vault.rotatorRole: whoever rotates the keys keeps a record of them, settings.keys.vault.record" -}}
{{- end -}}
{{- $_ := set $vault "rotator" (merge (dict "role" .Values.vault.rotatorRole) $auth) -}}
{{- end -}}
{{- $_ := set $own "keys" (dict "store" (dig "keys" "store" "vault-transit" .Values.settings) "vault" $vault) -}}
{{- /* Of the cores of a node nobody knows which are busy, unless whoever sets this does. */ -}}
{{- $_ := set $own "workers" (dict "pin" (dig "workers" "pin" "never" .Values.settings)) -}}
{{- if .Values.policies -}}
{{- $_ := set $own "policies" "/etc/broker/policies" -}}
{{- end -}}
{{- toYaml (mergeOverwrite (deepCopy .Values.settings) $own) -}}
{{- end -}}

{{- /* The key of a policy file in its ConfigMap, where a name may hold no slash. */ -}}
{{- define "broker.policyKey" -}}
{{- . | replace "/" "." -}}
{{- end -}}

{{- define "broker.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}
