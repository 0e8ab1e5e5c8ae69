#!/bin/sh
# The same for a client that cannot be changed, only be given a proxy: the host's name is what the agent must be able to do.
# The plaintext listener knows us by `assumedPrincipal`.  Inside HTTPS_PROXY the gateway shows a certificate of its
# connectAuthority, which CURL_CA_BUNDLE has curl believe.
set -eu
: "${HTTPS_PROXY:=http://127.0.0.1:8080}"
export HTTPS_PROXY CURL_CA_BUNDLE="${FLIGHT_PROXY_CA:-certs/connect-ca.pem}"
export http_proxy="$HTTPS_PROXY"     # curl reads this one in lower case only

ask() {
  curl --silent --show-error --fail-with-body --max-time 30 --json "{\"text\": \"${1:-work that is handed on}\"}" "$2"
  echo
}
ask "${1:-}" http://text.count.flight.internal/count
ask "${1:-}" https://text.count.flight.internal/count
