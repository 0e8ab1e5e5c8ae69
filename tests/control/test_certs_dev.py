"""A throw-away CA and what it signs."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from typer.testing import CliRunner

from gateway.cli import app
from gateway.control.certs_dev import Authority, issue_dev_certificates, write_pair
from gateway.identity import principal_from_certificate

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
SVIDS = {"planner": "/ns/agents/sa/planner"}


def issue(folder: Path, now: datetime = NOW, **options: bool) -> list[str]:
    return issue_dev_certificates(folder, trust_domain="mesh.local", svids=SVIDS, now=now, **options)


def certificate(folder: Path, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / f"{name}.pem").read_bytes())


def names(of: x509.Certificate) -> x509.SubjectAlternativeName:
    return of.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> ssl.SSLObject:
    """Shake hands in memory and give the server's side."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    caller = client.wrap_bio(to_client, to_server, server_hostname=host)
    answerer = server.wrap_bio(to_server, to_client, server_side=True)
    waiting = [caller, answerer]
    while waiting:
        for side in list(waiting):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(side)
    return answerer


def test_everything_is_written_and_keys_are_for_their_owner_only(tmp_path: Path) -> None:
    assert issue(tmp_path) == ["ca", "connect-ca", "gateway", "planner"]
    for name in ("ca", "connect-ca", "gateway", "planner"):
        assert (tmp_path / f"{name}.pem").exists()
        assert (tmp_path / f"{name}-key.pem").stat().st_mode & 0o777 == 0o600


def test_a_key_file_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    (tmp_path / "planner-key.pem").touch(mode=0o644)
    issue(tmp_path)
    assert (tmp_path / "planner-key.pem").stat().st_mode & 0o777 == 0o600


def test_the_gateway_can_be_reached_by_its_names(tmp_path: Path) -> None:
    issue(tmp_path)
    found = names(certificate(tmp_path, "gateway"))
    assert found.get_values_for_type(x509.DNSName) == ["localhost", "*.flight.internal"]
    assert [str(each) for each in found.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    assert found.get_values_for_type(x509.UniformResourceIdentifier) == [
        "spiffe://mesh.local/ns/phoenixflight/sa/gateway"
    ]


def test_an_svid_names_one_principal_and_serves_both_ends(tmp_path: Path) -> None:
    issue(tmp_path)
    pem = (tmp_path / "planner.pem").read_text()
    principal = principal_from_certificate(ssl.PEM_cert_to_DER_cert(pem))
    assert principal.id == "spiffe://mesh.local/ns/agents/sa/planner"
    assert principal.not_after == NOW + timedelta(days=7)
    usage = certificate(tmp_path, "planner").extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usage) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}


def test_svids_shake_hands_with_each_other(tmp_path: Path) -> None:
    issue(tmp_path, datetime.now(UTC))
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tmp_path / "ca.pem")
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_cert_chain(tmp_path / "gateway.pem", tmp_path / "gateway-key.pem")
    client = ssl.create_default_context(cafile=tmp_path / "ca.pem")
    client.load_cert_chain(tmp_path / "planner.pem", tmp_path / "planner-key.pem")
    shown = handshake(server, client, "coder.flight.internal").getpeercert(True)
    assert shown is not None
    assert principal_from_certificate(shown).id == "spiffe://mesh.local/ns/agents/sa/planner"


def test_the_connect_ca_vouches_for_flight_internal_and_nothing_else(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    issue(tmp_path, now)
    authority = Authority.load(tmp_path / "connect-ca.pem", tmp_path / "connect-ca-key.pem")
    client = ssl.create_default_context(cafile=tmp_path / "connect-ca.pem")

    def serve(host: str) -> ssl.SSLContext:
        write_pair(tmp_path, "inner", *authority.issue(now, dns=[host]))
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(tmp_path / "inner.pem", tmp_path / "inner-key.pem")
        return server

    handshake(serve("coder.flight.internal"), client, "coder.flight.internal")
    with pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree violation"):
        handshake(serve("bank.example"), client, "bank.example")


def test_a_second_call_keeps_the_ca_and_renews_what_it_signs(tmp_path: Path) -> None:
    issue(tmp_path)
    ca, planner = certificate(tmp_path, "ca"), certificate(tmp_path, "planner")
    assert issue(tmp_path, NOW + timedelta(days=6)) == ["gateway", "planner"]
    assert certificate(tmp_path, "ca") == ca
    renewed = certificate(tmp_path, "planner")
    assert renewed.not_valid_after_utc == planner.not_valid_after_utc + timedelta(days=6)
    renewed.verify_directly_issued_by(ca)


def test_force_makes_new_cas(tmp_path: Path) -> None:
    issue(tmp_path)
    before = certificate(tmp_path, "ca")
    assert issue(tmp_path, force=True) == ["ca", "connect-ca", "gateway", "planner"]
    assert certificate(tmp_path, "ca") != before


def test_a_ca_that_has_expired_signs_nothing(tmp_path: Path) -> None:
    issue(tmp_path)
    with pytest.raises(ValueError, match=r"ca\.pem expired on 2026-12-23: make a new CA with --force"):
        issue(tmp_path, NOW + timedelta(days=30))
    assert "ca" in issue(tmp_path, NOW + timedelta(days=30), force=True)


@pytest.mark.parametrize("name", ["ca", "connect-ca", "gateway-key"])
def test_an_svid_cannot_take_a_name_that_would_overwrite_another_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        issue_dev_certificates(tmp_path / "out", trust_domain="mesh.local", svids={name: "/x"}, now=NOW)
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_it_wrote_and_that_it_is_for_development(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["certs", "dev", "--out", str(tmp_path), "--svid", "coder=/ns/agents/sa/coder"])
    assert result.exit_code == 0, result.output
    assert result.output == f"wrote ca, connect-ca, gateway, coder to {tmp_path}/ (for development only)\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--svid", "coder"],
        ["--svid", "coder=no/slash"],
        ["--svid", "../x=/y"],
        ["--trust-domain", "Not A Domain"],
        ["--trust-domain", "a/b"],
    ],
)
def test_the_command_refuses_what_is_no_svid_and_writes_nothing(tmp_path: Path, arguments: list[str]) -> None:
    result = CliRunner().invoke(app, ["certs", "dev", "--out", str(tmp_path / "certs"), *arguments])
    assert result.exit_code == 2
    assert not (tmp_path / "certs").exists()


def test_the_command_tells_of_a_ca_without_its_key(tmp_path: Path) -> None:
    issue(tmp_path)
    (tmp_path / "ca-key.pem").unlink()
    result = CliRunner().invoke(app, ["certs", "dev", "--out", str(tmp_path)])
    assert result.exit_code == 1
    assert "ca-key.pem" in result.output
