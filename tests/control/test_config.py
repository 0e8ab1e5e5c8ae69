"""The Gateway document: what it means, and where its mistakes are told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.control.config import ClientAuth, GatewaySpec, ListenerSpec, load_config
from gateway.control.files import read_sources
from gateway.documents import DocumentError

MINIMAL = """\
apiVersion: phoenixflight.io/v1
kind: Gateway
metadata: {name: test}
spec:
  listeners:
    - {name: local, address: "127.0.0.1:8080", tls: false}
  policies: policies
  members: agents.yaml
"""

FULL = """\
apiVersion: phoenixflight.io/v1
kind: Gateway
metadata: {name: test}
spec:
  identity: {certificate: certs/gateway.pem, key: certs/gateway-key.pem, trustBundle: /etc/ca.pem}
  listeners:
    - {name: mesh, address: "[::1]:8443"}
    - {name: local, address: "127.0.0.1:8080", tls: false, assumedPrincipal: "spiffe://mesh.local/dev"}
  admin: {address: "127.0.0.1:0"}
  policies: ../policies
  members: agents.yaml
  connectAuthority: {certificate: certs/connect-ca.pem, key: certs/connect-ca-key.pem}
  trustedHops: ["spiffe://mesh.local/ns/edge/**"]
  telemetry:
    accessLog: logs/access.log
    tracing: {otlpEndpoint: "http://127.0.0.1:4318/v1/traces", sampleRatio: 0.5}
  recorder: {folder: logs/recorder, fsync: always, segmentBytes: 65536, maxAge: 24h, onFailure: continue}
  limits: {headersTimeout: 500ms, idleTimeout: 5m, maxTimeout: 1h, drainTimeout: 1.5s, maxHeaderBytes: 4096}
"""


def load(folder: Path, text: str) -> GatewaySpec:
    path = folder / "gateway.yaml"
    path.write_text(text)
    return load_config(path)


def problems(folder: Path, text: str) -> list[str]:
    with pytest.raises(DocumentError) as caught:
        load(folder, text)
    return [str(problem).removeprefix(f"{folder}/gateway.yaml:") for problem in caught.value.problems]


def test_what_is_left_out_has_its_documented_default(tmp_path: Path) -> None:
    spec = load(tmp_path, MINIMAL)
    assert spec.admin.address == ("127.0.0.1", 9901)
    assert spec.telemetry.access_log == "stdout"
    assert spec.telemetry.tracing is None
    assert spec.recorder is None
    assert spec.identity is None
    assert spec.connect_authority is None
    assert spec.trusted_hops == ()
    assert spec.listeners[0].client_auth is ClientAuth.REQUIRE
    assert ListenerSpec.model_fields["tls"].default is True
    off = {name for name, value in spec.limits if value is None}
    assert off == {"max_body_bytes", "max_stream_duration_s", "sse_keep_alive_s"}, "every other limit is on"


def test_every_setting_is_read(tmp_path: Path) -> None:
    spec = load(tmp_path, FULL)
    assert [listener.address for listener in spec.listeners] == [("::1", 8443), ("127.0.0.1", 8080)]
    assert [listener.tls for listener in spec.listeners] == [True, False]
    assert spec.listeners[1].assumed_principal == "spiffe://mesh.local/dev"
    assert [hop.text for hop in spec.trusted_hops] == ["spiffe://mesh.local/ns/edge/**"]
    limits = spec.limits
    assert (limits.headers_timeout_s, limits.idle_timeout_s, limits.max_timeout_s) == (0.5, 300.0, 3600.0)
    assert (limits.drain_timeout_s, limits.max_header_bytes) == (1.5, 4096)


def test_paths_are_relative_to_the_file_and_absolute_once_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gateway.yaml").write_text(FULL)
    monkeypatch.chdir(tmp_path)
    spec = load_config(Path("gateway.yaml"))
    assert spec.members == tmp_path / "agents.yaml"
    assert spec.policies.is_absolute()
    assert spec.policies.resolve() == tmp_path.parent / "policies"
    assert spec.identity is not None
    assert spec.identity.certificate == tmp_path / "certs" / "gateway.pem"
    assert spec.identity.trust_bundle == Path("/etc/ca.pem")
    assert spec.connect_authority is not None
    assert spec.connect_authority.key == tmp_path / "certs" / "connect-ca-key.pem"
    assert spec.telemetry.access_log == str(tmp_path / "logs" / "access.log")
    assert spec.recorder is not None
    assert spec.recorder.folder == tmp_path / "logs" / "recorder"
    assert not spec.recorder.folder.parent.exists(), "it is only made when there is something to record"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("name: local", "name: mesh", "8:14: spec.listeners.1.name: two listeners are named 'mesh'"),
        ("name: local", "name: Local", "8:14: spec.listeners.1.name: 'Local' is not a name"),
        ("[::1]:8443", "8443", "7:29: spec.listeners.0.address: expected host:port"),
        ("8443\"}", "8443\", clientAuth: maybe}", "7:55: spec.listeners.0.clientAuth: expected 'require' or"),
        ("8443\"}", "8443\", assumedPrincipal: spiffe://a/b}", "7:61: spec.listeners.0.assumedPrincipal: no caller"),
        ("8443\"}", "8443\", originalDestination: true}", "7:64: spec.listeners.0.originalDestination: a caller that"),
        ("spiffe://mesh.local/dev", "root", "8:78: spec.listeners.1.assumedPrincipal: 'root' is not a SPIFFE id"),
        ("  identity: {certificate: certs/gateway.pem, key: certs/gateway-key.pem, trustBundle: /etc/ca.pem}\n", "",
         "6:7: spec.listeners.0: a TLS listener needs spec.identity"),
        (", trustBundle: /etc/ca.pem", "", "5:13: spec.identity.trustBundle: this field is required"),
        ("spiffe://mesh.local/ns/edge/**", "spiffe://*", "13:17: spec.trustedHops.0: 'spiffe://*' is not a SPIFFE"),
        ("500ms", "500", "18:28: spec.limits.headersTimeout: expected a duration such as 500ms"),
        ("500ms", "2.5", "18:28: spec.limits.headersTimeout: expected a duration such as 500ms"),
        ("500ms", "0s", "18:28: spec.limits.headersTimeout: expected more than 0"),
        ("4096", "many", "18:104: spec.limits.maxHeaderBytes: expected a whole number"),
        ("headersTimeout", "headers_timeout_s", "18:12: unknown field 'headers_timeout_s'; did you mean"),
        ("http://127", "ftp://127", "16:29: spec.telemetry.tracing.otlpEndpoint: expected an http:// or https:// URL"),
        ("0.5", "1.5", "16:77: spec.telemetry.tracing.sampleRatio: expected 1.0 or less"),
        ("logs/recorder", "/dev/null/x", "17:22: spec.recorder.folder: /dev/null/x cannot be written: "),
        ("maxAge: 24h", "key: none.pem", "17:78: spec.recorder.key: "),
        ("65536", "1048576, maxBytes: 1048576", "17:85: spec.recorder.maxBytes: expected two files"),
        ("logs/access.log", '""', "15:16: spec.telemetry.accessLog: expected at least 1 character"),
        ("metadata: {name: test}\n", "", "1:1: metadata: this field is required"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_where_it_stands(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in FULL
    found = problems(tmp_path, FULL.replace(old, new, 1))
    assert any(each.startswith(told) for each in found), found


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = FULL.replace("500ms", "soon").replace("[::1]:8443", "x").replace("admin:", "admim:")
    assert sorted(each.split(":")[0] for each in problems(tmp_path, text)) == ["18", "7", "9"]


def test_no_listeners_is_a_mistake(tmp_path: Path) -> None:
    text = MINIMAL.replace(
        '  listeners:\n    - {name: local, address: "127.0.0.1:8080", tls: false}\n', "  listeners: []\n"
    )
    assert problems(tmp_path, text) == ["5:14: spec.listeners: expected at least 1 item(s)"]


def test_a_missing_file_is_told_like_any_mistake(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=r"gateway\.yaml:1:1: No such file"):
        load_config(tmp_path / "gateway.yaml")


def test_text_that_is_not_utf8_is_told_like_any_mistake(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_bytes(b"kind: \xff")
    with pytest.raises(DocumentError, match=r"gateway\.yaml:1:1: not UTF-8"):
        load_config(tmp_path / "gateway.yaml")


def config_map(folder: Path, version: str, **files: str) -> None:
    """Write `files` as the kubelet does: a folder for each version, reached through links that are swapped."""
    (folder / version).mkdir()
    for name, text in files.items():
        (folder / version / f"{name}.yaml").write_text(text)
        if not (folder / f"{name}.yaml").is_symlink():
            (folder / f"{name}.yaml").symlink_to(f"..data/{name}.yaml")
    (folder / "..fresh").symlink_to(version)
    os.replace(folder / "..fresh", folder / "..data")


def test_a_config_map_is_followed_through_its_links_to_the_newest_version(tmp_path: Path) -> None:
    config_map(tmp_path, "..one", gateway=MINIMAL, agents="old")
    spec = load_config(tmp_path / "gateway.yaml")
    config_map(tmp_path, "..two", gateway=MINIMAL, agents="new")
    assert spec.members.read_text() == "new"


def test_sources_are_the_yaml_files_of_a_folder_and_nothing_else(tmp_path: Path) -> None:
    config_map(tmp_path, "..one", b="b", a="a")
    (tmp_path / "c.yml").write_text("c")
    (tmp_path / "notes.txt").write_text("no")
    (tmp_path / ".hidden.yaml").write_text("no")
    (tmp_path / "folder.yaml").mkdir()
    assert {Path(path).name: text for path, text in read_sources(tmp_path).items()} == {
        "a.yaml": "a",
        "b.yaml": "b",
        "c.yml": "c",
    }


def test_a_source_may_be_one_file(tmp_path: Path) -> None:
    (tmp_path / "only.yaml").write_text("text")
    assert read_sources(tmp_path / "only.yaml") == {str(tmp_path / "only.yaml"): "text"}


def test_a_link_that_leads_nowhere_is_told_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "deny.yaml").symlink_to("gone.yaml")
    with pytest.raises(DocumentError, match=r"deny\.yaml:1:1: No such file"):
        read_sources(tmp_path)


def test_sources_that_are_not_there_are_told(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=r"policies:1:1: No such file"):
        read_sources(tmp_path / "policies")


def test_several_workers_need_a_place_to_agree_in(tmp_path: Path) -> None:
    (told,) = problems(tmp_path, f"{MINIMAL}  workers: 2\n")
    assert told.startswith("9:12: spec.workers: workers share signatures")
    url = "redis://127.0.0.1:6379/0"
    assert load(tmp_path, f"{MINIMAL}  workers: 2\n  redis: {{url: '{url}'}}\n").workers == 2
