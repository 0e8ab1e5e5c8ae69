"""A real kube-apiserver on a real etcd, where both can be had (``tools/kube-apiserver``)."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import yaml

from gateway.control.certs_dev import Authority
from tests.kube_api import Object
from tests.kube_api.store import KINDS
from tests.waiting import eventually, free_port

BINARY = Path(__file__).parents[2] / ".tools" / "kube-apiserver"
ADMIN_TOKEN = "admin-token"
GATEWAY = "system:serviceaccount:phoenixflight:phoenixflight-gateway"
PAGE = Path(__file__).parents[2] / "docs" / "kubernetes.md"


def missing() -> str:
    """Why there is none; empty if there is."""
    if not BINARY.exists():
        return "no .tools/kube-apiserver: tools/kube-apiserver builds it"
    return "" if shutil.which("etcd") else "no etcd"


class RealApi:
    """The API server, its objects, and a kubeconfig with the rights that docs/kubernetes.md gives the gateway."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self._etcd_port, self._peer_port = free_port(), free_port(), free_port()
        self.token = "gateway-token"
        now = datetime.now(UTC)
        authority = Authority.create("kubernetes", now)
        authority.write(folder, "ca")
        certificate, key = authority.issue(now, uris=["spiffe://cluster.local/apiserver"])
        (folder / "api.pem").write_bytes(certificate)
        (folder / "api-key.pem").write_bytes(key)
        (folder / "tokens.csv").write_text(
            f'{ADMIN_TOKEN},admin,1,"system:masters"\n{self.token},{GATEWAY},2,"system:serviceaccounts"\n'
        )
        self._client = httpx.Client(
            base_url=f"https://127.0.0.1:{self.port}",
            verify=ssl.create_default_context(cafile=folder / "ca.pem"),
            headers={"authorization": f"Bearer {ADMIN_TOKEN}"},
            trust_env=False,
            timeout=20,
        )
        self._etcd = self._start_etcd()
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._begin()
        except BaseException:
            self.stop()
            raise

    def _begin(self) -> None:
        self.up()
        self._write_credentials()
        for namespace in ("agents", "phoenixflight"):
            self._apply(
                "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
            )
        self._grant()

    def _start_etcd(self) -> subprocess.Popen[bytes]:
        url, peer = f"http://127.0.0.1:{self._etcd_port}", f"http://127.0.0.1:{self._peer_port}"
        options = {
            "data-dir": self.folder / "etcd", "listen-client-urls": url, "advertise-client-urls": url,
            "listen-peer-urls": peer, "initial-advertise-peer-urls": peer, "initial-cluster": f"default={peer}",
        }  # fmt: skip
        return self._start("etcd", options)

    def _start(self, program: str, options: dict[str, Any]) -> subprocess.Popen[bytes]:
        with (self.folder / f"{Path(program).name}.log").open("ab") as log:
            return subprocess.Popen(
                [program, *(f"--{name}={value}" for name, value in options.items())], stderr=log, stdout=log
            )

    def up(self) -> None:
        """Start the API server, and wait until it is ready."""
        if self._process is not None:
            return
        key = self.folder / "api-key.pem"
        options = {
            "etcd-servers": f"http://127.0.0.1:{self._etcd_port}",
            "bind-address": "127.0.0.1", "secure-port": self.port,
            "advertise-address": "127.0.0.1", "endpoint-reconciler-type": "none", "authorization-mode": "RBAC",
            "tls-cert-file": self.folder / "api.pem", "tls-private-key-file": key,
            "token-auth-file": self.folder / "tokens.csv", "service-account-key-file": self.folder / "api.pem",
            "service-account-signing-key-file": key, "service-account-issuer": "https://kubernetes.default.svc",
            "service-cluster-ip-range": "10.96.0.0/16", "disable-admission-plugins": "ServiceAccount",
            "shutdown-delay-duration": "0s",
        }  # fmt: skip
        self._process = self._start(str(BINARY), options)
        eventually(self._ready, 90)

    def _ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "kube-apiserver.log").read_text()[-2000:]
        try:
            return self._client.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def down(self) -> None:
        """Kill the API server."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def _write_credentials(self) -> None:
        (self.folder / "token").write_text(self.token)
        cluster = {"server": f"https://127.0.0.1:{self.port}", "certificate-authority": "ca.pem"}
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"tokenFile": "token"}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        }  # fmt: skip
        self.kubeconfig.write_text(yaml.safe_dump(config))

    def _grant(self) -> None:
        """What the page says that the gateway may."""
        documents = PAGE.read_text(encoding="utf-8").split("```yaml\n")[3].split("```")[0]
        for each in yaml.safe_load_all(documents):
            if each["kind"] != "ServiceAccount":
                plural = f"{each['kind'].lower()}s"
                self._apply(f"/apis/rbac.authorization.k8s.io/v1/{plural}", each)

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    @property
    def service_account(self) -> Path:
        return self.folder

    def _apply(self, path: str, written: Object) -> Object:
        answer = self._client.patch(
            f"{path}/{written['metadata']['name']}",
            params={"fieldManager": "tests", "force": "true"},
            headers={"content-type": "application/apply-patch+yaml"},
            content=json.dumps(written),
        )
        assert answer.is_success, answer.text
        found: Object = answer.json()
        return found

    def _path(self, plural: str, namespace: str) -> str:
        version = KINDS[plural][0]
        return f"/{'apis' if '/' in version else 'api'}/{version}/namespaces/{namespace}/{plural}"

    def put(self, plural: str, *objects: Object) -> int:
        """Create or replace objects; the resource version of the last."""
        version = 0
        for each in objects:
            api_version, kind = KINDS[plural]
            written = {"apiVersion": api_version, "kind": kind, **each}
            found = self._apply(self._path(plural, each["metadata"]["namespace"]), written)
            version = int(found["metadata"]["resourceVersion"])
        return version

    def delete(self, plural: str, namespace: str, name: str) -> None:
        assert self._client.delete(f"{self._path(plural, namespace)}/{name}").is_success

    def clear(self, plural: str) -> None:
        """Delete all that tests wrote."""
        for namespace in ("agents", "phoenixflight"):
            for each in self._client.get(self._path(plural, namespace)).json()["items"]:
                self.delete(plural, namespace, each["metadata"]["name"])

    def compact(self, version: int) -> None:
        """Have etcd forget all before `version`."""
        answer = httpx.post(
            f"http://127.0.0.1:{self._etcd_port}/v3/kv/compaction",
            json={"revision": version, "physical": True},
            timeout=20,
        )
        assert answer.is_success, answer.text

    def stop(self) -> None:
        self.down()
        self._client.close()
        self._etcd.kill()
        self._etcd.wait(10)
