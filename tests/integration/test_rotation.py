"""Certificates are replaced under traffic."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509

from gateway.control.certs_dev import CA_DAYS, Authority, issue_dev_certificates
from tests.conformance.test_http1 import answer_each
from tests.conftest import CAPABILITY, ConfigMap, StartGateway, client_context, eventually, launch, member

SECONDS = float(os.environ.get("ROTATION_SECONDS", "5"))
RATE = 200


def serial(port: int, certs: Path) -> int:
    with (
        socket.create_connection(("127.0.0.1", port), 5) as raw,
        client_context(certs).wrap_socket(raw, server_hostname="127.0.0.1") as connection,
    ):
        der = connection.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number


@pytest.mark.slow
def test_certificates_replaced_under_traffic_fail_no_request(raw_agent, certs: Path, tmp_path: Path) -> None:
    own = tmp_path / "certs"
    shutil.copytree(certs, own)
    (tmp_path / "gateway").mkdir()
    gateway = launch(tmp_path / "gateway", own, [member(raw_agent(answer_each).port)])
    seen: Counter[object] = Counter()
    stop = threading.Event()

    def call(http2: bool, fresh: bool) -> None:
        """A quarter of the load; half of the callers make a new connection every ten requests."""
        client = gateway.client(http2=http2)
        due = time.monotonic()
        for number in range(int(SECONDS * RATE / 4)):
            if stop.is_set():
                return
            due += 4 / RATE
            time.sleep(max(0.0, due - time.monotonic()))
            try:
                seen[client.post("/run", headers=CAPABILITY).status_code] += 1
            except httpx.HTTPError as error:
                seen[repr(error)] += 1
            if fresh and number % 10 == 9:
                client.close()
                client = gateway.client(http2=http2)
        client.close()

    try:
        before = serial(gateway.tls_port, own)
        callers = [
            threading.Thread(target=call, args=(http2, fresh)) for http2 in (True, False) for fresh in (True, False)
        ]
        for caller in callers:
            caller.start()
        serials = {before}
        while any(caller.is_alive() for caller in callers):
            issue_dev_certificates(own, trust_domain="mesh.local", svids={}, now=datetime.now(UTC))
            known = set(serials)
            eventually(lambda known=known: serial(gateway.tls_port, own) not in known)
            serials.add(serial(gateway.tls_port, own))
        for caller in callers:
            caller.join()
    finally:
        stop.set()
        gateway.stop()
    assert set(seen) == {200}
    assert seen[200] >= SECONDS * RATE * 0.95
    assert len(serials) > 2


def test_a_mounted_secret_is_followed_and_a_key_that_does_not_fit_is_refused(
    raw_agent, start_gateway: StartGateway, certs: Path, tmp_path: Path
) -> None:
    def secret(folder: Path, key_of: str = "gateway") -> dict[str, str]:
        files = {"tls.crt": "gateway.pem", "tls.key": f"{key_of}-key.pem", "ca.crt": "ca.pem"}
        return {name: (folder / file).read_text() for name, file in files.items()}

    fresh = tmp_path / "fresh"
    shutil.copytree(certs, fresh)
    issue_dev_certificates(fresh, trust_domain="mesh.local", svids={}, now=datetime.now(UTC))
    mount = ConfigMap(tmp_path / "tls", secret(certs))
    identity = {"certificate": "tls.crt", "key": "tls.key", "trustBundle": "ca.crt"}
    gateway = start_gateway(
        [member(raw_agent(answer_each).port)],
        identity={name: str(mount.folder / file) for name, file in identity.items()},
    )
    before = serial(gateway.tls_port, certs)
    mount.swap(secret(fresh, key_of="planner"))
    refused = eventually(lambda: gateway.admin("/status").json()["last_refused"])
    assert "tls.key" in refused["problems"][0]
    assert serial(gateway.tls_port, certs) == before
    mount.swap(secret(fresh))
    eventually(lambda: serial(gateway.tls_port, certs) != before)
    assert gateway.admin("/status").json()["in_step_with_files"]


LONG_AGO = datetime.now(UTC) - timedelta(days=CA_DAYS + 1)


def another_key(folder: Path, name: str) -> None:
    shutil.copy(folder / "planner-key.pem", folder / f"{name}-key.pem")


def an_expired_ca(folder: Path, name: str) -> None:
    Authority.create("long ago", LONG_AGO).write(folder, name)


def gone(folder: Path, name: str) -> None:
    (folder / f"{name}.pem").unlink()


def no_certificate(folder: Path, name: str) -> None:
    (folder / f"{name}.pem").write_text("-----BEGIN CERTIFICATE-----\nnone\n")


BROKEN = {
    "a key that does not fit": (another_key, "gateway", "KEY_VALUES_MISMATCH"),
    "a certificate that is gone": (gone, "gateway", "/gateway.pem'"),
    "a certificate that is none": (no_certificate, "gateway", "Unable to load PEM file"),
    "an expired bundle": (an_expired_ca, "ca", "/ca.pem): the CA has expired"),
    "a bundle that is gone": (gone, "ca", "/ca.pem'"),
    "a bundle that is none": (no_certificate, "ca", "Unable to load PEM file"),
    "a key that does not fit the CA of tunnels": (another_key, "connect-ca", "/connect-ca-key.pem: not the key"),
    "an expired CA of tunnels": (an_expired_ca, "connect-ca", "connectAuthority: the CA has expired"),
    "a CA of tunnels that is gone": (gone, "connect-ca", "/connect-ca.pem'"),
}


def test_files_of_certificates_that_cannot_be_used_change_nothing_and_say_why(
    raw_agent, certs: Path, tmp_path: Path
) -> None:
    own = tmp_path / "certs"
    shutil.copytree(certs, own)
    (tmp_path / "gateway").mkdir()
    gateway = launch(tmp_path / "gateway", own, [member(raw_agent(answer_each).port)])
    gateway.certs = certs  # callers have files of their own

    def in_step() -> bool:
        return bool(gateway.admin("/status").json()["in_step_with_files"])

    def refused() -> str:
        """Why the files as they are now are refused."""
        return "" if in_step() else str(gateway.admin("/status").json()["last_refused"]["problems"][0])

    try:
        before = serial(gateway.tls_port, certs), gateway.revision()
        for what, (breaks, name, told) in BROKEN.items():
            kept = {file: file.read_bytes() for file in own.glob(f"{name}*.pem")}
            breaks(own, name)
            eventually(lambda told=told: told in refused())
            assert (serial(gateway.tls_port, certs), gateway.revision()) == before, what
            with gateway.client() as client:
                assert client.post("/run", headers=CAPABILITY).status_code == 200, what
            for file, content in kept.items():
                file.write_bytes(content)
            eventually(in_step)
    finally:
        gateway.stop()


def test_a_bundle_may_keep_a_ca_that_has_expired(
    raw_agent, start_gateway: StartGateway, certs: Path, tmp_path: Path
) -> None:
    an_expired_ca(tmp_path, "old")
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes((tmp_path / "old.pem").read_bytes() + (certs / "ca.pem").read_bytes())
    identity = {"certificate": certs / "gateway.pem", "key": certs / "gateway-key.pem", "trustBundle": bundle}
    gateway = start_gateway(
        [member(raw_agent(answer_each).port)], identity={name: str(file) for name, file in identity.items()}
    )
    with gateway.client() as client:
        assert client.post("/run", headers=CAPABILITY).status_code == 200
