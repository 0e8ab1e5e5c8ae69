"""`helm test`: the gateway answers through its Service, and decides."""

import http.client
import os
import ssl
import sys

host, port, folder = os.environ["GATEWAY_HOST"], int(os.environ["GATEWAY_PORT"]), os.environ.get("IDENTITY", "")
if folder:
    certificate, key, roots = (os.path.join(folder, os.environ[name]) for name in ("CERTIFICATE", "KEY", "ROOTS"))
    context = ssl.create_default_context(cafile=roots)
    context.check_hostname = False  # a gateway is known by its SPIFFE id
    context.load_cert_chain(certificate, key)
    connection = http.client.HTTPSConnection(host, port, timeout=10, context=context)
else:
    connection = http.client.HTTPConnection(host, port, timeout=10)
connection.request("GET", "/", headers={"flight-capability": "helm.test"})
if folder:
    names = connection.sock.getpeercert().get("subjectAltName", ())
    if ("URI", os.environ["SPIFFE_ID"]) not in names:
        sys.exit(f"{host}:{port} is not {os.environ['SPIFFE_ID']} but {names}")
answer = connection.getresponse()
text = answer.read(2000).decode()
sys.stdout.write(f"{answer.status} {text}\n")
# Nobody offers helm.test: that a gateway says so, or that no policy allows it, is the answer.
if "urn:phoenixflight:" not in text or answer.status not in (403, 404):
    sys.exit("this is not how the gateway refuses")
