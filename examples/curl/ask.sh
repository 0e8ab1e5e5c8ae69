#!/bin/sh
# An agent that is a shell script: curl with a client certificate, and one header.
# FLIGHT_GATEWAY is the gateway; FLIGHT_CERT, FLIGHT_KEY and FLIGHT_CA are files: who we are, and whom we believe.
set -eu
: "${FLIGHT_GATEWAY:=https://127.0.0.1:8443}" "${FLIGHT_CA:=certs/ca.pem}"
: "${FLIGHT_CERT:=certs/caller.pem}" "${FLIGHT_KEY:=certs/caller-key.pem}"

# --fail-with-body: a refusal is an error, and its words (application/problem+json) are shown all the same.
curl --silent --show-error --fail-with-body --max-time 30 \
  --cacert "$FLIGHT_CA" --cert "$FLIGHT_CERT" --key "$FLIGHT_KEY" \
  --header 'flight-capability: text.count' \
  --header "flight-conversation: \"${CONVERSATION:-curl-1}\"" \
  --json "{\"text\": \"${1:-work that is handed on}\"}" \
  "$FLIGHT_GATEWAY/count"
echo
