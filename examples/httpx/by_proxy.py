"""A program that knows nothing of the gateway: two variables of its environment lead it there.

HTTPS_PROXY=http://127.0.0.1:8080   the gateway's plaintext listener, beside this program
SSL_CERT_FILE=certs/connect-ca.pem  what the gateway's certificates for *.flight.internal chain to
"""

import sys

import httpx

text = " ".join(sys.argv[1:]) or "work that is handed on"
answer = httpx.post("https://text.count.flight.internal/count", json={"text": text}, timeout=30)
answer.raise_for_status()
print(answer.json()["words"])
