"""An API server of Kubernetes for tests: a process of its own, that lists and watches as the real one does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import yaml

from gateway.control.certs_dev import Authority
from tests.waiting import eventually, free_port

Object = dict[str, Any]


class KubeApi:
    """The server, and what tests tell it."""

    def __init__(self, folder: Path, *, kept: int = 10_000) -> None:
        now = datetime.now(UTC)
        authority = Authority.create("kubernetes", now)
        authority.write(folder, "ca")
        self._roots = (folder / "ca.pem").read_bytes()
        certificate, key = authority.issue(now, uris=["spiffe://cluster.local/apiserver"])
        (folder / "api.pem").write_bytes(certificate)
        (folder / "api-key.pem").write_bytes(key)
        self.folder = folder
        self.port, self._control_port = free_port(), free_port()
        self.token = "token-1"
        options = {
            "port": self.port, "control-port": self._control_port, "cert": folder / "api.pem",
            "key": folder / "api-key.pem", "token": self.token, "kept": kept,
        }  # fmt: skip
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        root = Path(__file__).parents[2]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.kube_api", *words],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root)},
        )
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{self._control_port}", timeout=20, trust_env=False)
        eventually(self._answers, 20)
        self._write_credentials()

    def _answers(self) -> bool:
        try:
            self.tell("requests")
        except httpx.TransportError:
            return False
        return True

    def _write_credentials(self) -> None:
        """A kubeconfig, and what a pod finds of its service account."""
        account = self.folder / "serviceaccount"
        account.mkdir(exist_ok=True)
        (self.folder / "ca.pem").write_bytes(self._roots)
        (account / "token").write_text(self.token)
        (account / "namespace").write_text("default")
        (account / "ca.crt").write_bytes(self._roots)
        cluster = {"server": f"https://127.0.0.1:{self.port}", "certificate-authority": "ca.pem"}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"tokenFile": "serviceaccount/token"}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        }
        self.kubeconfig.write_text(yaml.safe_dump(config))

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    @property
    def service_account(self) -> Path:
        return self.folder / "serviceaccount"

    def tell(self, do: str, **what: Any) -> Any:
        """Have the server do something; see `tests.kube_api.control`."""
        answer = self._client.post("/", json={"do": do, **what})
        answer.raise_for_status()
        return answer.json()

    def reset(self) -> None:
        """Be as new, for the next test."""
        self.tell("reset", token=self.token)
        self._write_credentials()

    def put(self, plural: str, *objects: Object) -> int:
        return self.tell("put", plural=plural, objects=objects)

    def delete(self, plural: str, namespace: str, name: str) -> int:
        return self.tell("delete", plural=plural, namespace=namespace, name=name)

    def fault(self, do: str, **what: Any) -> None:
        """Something goes wrong with requests to come; see `tests.kube_api.serve.Fault`."""
        self.tell("fault", fault=do, **what)

    def interrupt(self, how: str, plural: str = "") -> int:
        """Something happens to open watches: ``cut``, ``gone``, ``end`` or ``stale-bookmark``; to how many of them."""
        return self.tell("interrupt", how=how, plural=plural)

    def down(self) -> None:
        """Nobody listens any more, and what is open breaks off; call it where open clients can go on meanwhile."""
        self.tell("down")

    def up(self) -> None:
        """The server is back, with all it knew."""
        self.tell("up")

    def requests(self, verb: str = "", plural: str = "") -> list[dict[str, Any]]:
        return [each for each in self.tell("requests") if verb in ("", each["verb"]) and plural in ("", each["plural"])]

    def grant(self, account: str, *objects: Object) -> None:
        """From now on the token is that of `account`, ``namespace/name``, with no rights but those of the Roles,
        ClusterRoles and bindings among `objects`.
        """
        self.tell("grant", account=account, objects=objects)

    def rotate_token(self, token: str, *, file: bool = True) -> None:
        """Only `token` is good from now on; `file` says whether the pod's file has it already."""
        if file:
            (self.service_account / "token").write_text(token)
        self.tell("tokens", tokens=[token])

    def stop(self) -> None:
        self._client.close()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)
