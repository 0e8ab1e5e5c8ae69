"""What can be configured of telemetry, and how a mistake is told."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from gateway.control.config import load_config
from gateway.documents import DocumentError
from gateway.telemetry.spec import OtlpProtocol, TelemetrySpec

DOCUMENT = """\
apiVersion: phoenixflight.io/v1
kind: Gateway
metadata: {name: test}
spec:
  listeners: [{name: local, address: "127.0.0.1:8080", tls: false, assumedPrincipal: "spiffe://mesh.local/dev"}]
  policies: policies
  members: agents.yaml
  telemetry:
"""
SECURE = "tracing: {otlpEndpoint: 'https://collector:4318', caFile: ca.pem}"


def load(folder: Path, *lines: str) -> TelemetrySpec:
    path = folder / "gateway.yaml"
    path.write_text(DOCUMENT + "".join(f"    {line}\n" for line in lines))
    return load_config(path).telemetry


def problem(folder: Path, *lines: str) -> str:
    with pytest.raises(DocumentError) as caught:
        load(folder, *lines)
    (only,) = caught.value.problems
    return str(only).removeprefix(f"{folder}/")


def test_every_setting_is_read(tmp_path: Path, certs: Path) -> None:
    (tmp_path / "ca.pem").write_bytes((certs / "ca.pem").read_bytes())
    spec = load(
        tmp_path,
        "accessLog: otlp",
        "maxLines: 500",
        "maxRefusedLines: 50",
        "logs: {otlpEndpoint: 'http://collector:4317', protocol: grpc, headers: {authorization: Bearer t}}",
        "tracing: {otlpEndpoint: 'https://c/v1/traces', caFile: ca.pem, timeout: 2s, slow: 5s, keptPerSecond: 0}",
    )
    assert spec.access_log == "otlp"
    assert (spec.max_lines, spec.max_refused_lines) == (500, 50)
    assert spec.logs is not None
    assert spec.logs.protocol is OtlpProtocol.GRPC
    assert spec.logs.headers == {"authorization": "Bearer t"}
    assert "Bearer" not in repr(spec)
    tracing = spec.tracing
    assert tracing is not None
    assert (tracing.timeout_s, tracing.slow_s, tracing.kept_per_second) == (2.0, 5.0, 0.0)
    assert tracing.ca_file == tmp_path / "ca.pem"


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["accessLog: otlp"], "gateway.yaml:9:16: spec.telemetry.accessLog: accessLog: otlp and logs"),
        (["logs: {otlpEndpoint: 'http://c'}"], "gateway.yaml:9:11: spec.telemetry.logs: accessLog: otlp and logs"),
        (["tracing: {otlpEndpoint: 'c:4317'}"], "gateway.yaml:9:29: spec.telemetry.tracing.otlpEndpoint: expected an"),
        (["tracing: {otlpEndpoint: 'http://'}"], "gateway.yaml:9:29: spec.telemetry.tracing.otlpEndpoint: not a URL"),
        (["tracing: {otlpEndpoint: 'http://c:99999'}"], "gateway.yaml:9:29: spec.telemetry.tracing.otlpEndpoint: not"),
        (["tracing: {otlpEndpoint: 'http://c', protocol: zipkin}"], "gateway.yaml:9:51: spec.telemetry.tracing.proto"),
        (["tracing: {otlpEndpoint: 'http://c', headers: {'a b': c}}"], "gateway.yaml:9:58: spec.telemetry.tracing.hea"),
        (
            ['tracing: {otlpEndpoint: "http://c", headers: {a: "b\\r\\nc"}}'],
            "gateway.yaml:9:54: spec.telemetry.tracing",
        ),
        (["tracing: {otlpEndpoint: 'http://c', caFile: ca.pem}"], "gateway.yaml:9:49: spec.telemetry.tracing.caFile:"),
        (["tracing: {otlpEndpoint: 'http://c', slow: 0s}"], "gateway.yaml:9:47: spec.telemetry.tracing.slow: expected"),
        ([SECURE], "ca.pem:1:1: the collector's CA cannot be used: No such file"),
    ],
)
def test_a_mistake_is_told_where_it_stands(tmp_path: Path, lines: list[str], told: str) -> None:
    assert problem(tmp_path, *lines).startswith(told)


def test_a_ca_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing of the kind")
    assert problem(tmp_path, SECURE).startswith("ca.pem:1:1: the collector's CA cannot be used")


def test_grpc_without_its_extra_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    told = problem(tmp_path, "tracing: {otlpEndpoint: 'http://c:4317', protocol: grpc}")
    assert "pip install 'phoenixflight-gateway[grpc]'" in told
