"""``phoenixflight packet``: commands that pipe into each other."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from click.testing import Result
from joserfc.jwk import ECKey, OctKey
from typer.testing import CliRunner

from gateway.cli import app


def packet(*arguments: str | Path, stdin: str | bytes = "") -> Result:
    return CliRunner().invoke(app, ["packet", *map(str, arguments)], input=stdin)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A private key in PEM, with ``jwks.json`` beside it that knows it as ``planner``."""
    made = ECKey.generate_key("P-256")
    (tmp_path / "key.pem").write_bytes(made.as_pem(private=True))
    public = made.as_dict(private=False) | {"kid": "planner"}
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [public]}))
    return tmp_path / "key.pem"


def test_new_sign_and_verify_pipe_into_each_other(key: Path) -> None:
    made = packet("new", "--capability", "code.execute", "--data", "-", stdin='{ "code": "6*7" }\n')
    signed = packet("sign", "--key", key, "--kid", "planner", stdin=made.stdout)
    verified = packet("verify", "--keys", key.with_name("jwks.json"), stdin=signed.stdout)
    assert [each.exit_code for each in (made, signed, verified)] == [0, 0, 0]
    assert verified.stdout == f"ok: packet {json.loads(made.stdout)['id']}, signed by planner\n"


def test_new_writes_what_its_options_say(tmp_path: Path) -> None:
    (tmp_path / "payload.md").write_text("# Plan\n")
    options = "--capability a --capability b --min-trust 0.85 --id i --conversation c --task t --parent p "
    options += "--timeout-ms 1500 --budget tokens=12 --budget hops=4 --content-type text/markdown"
    made = packet("new", *options.split(), "--data", tmp_path / "payload.md")
    assert json.loads(made.stdout) == {
        "specversion": "1.0",
        "id": "i",
        "capabilities": ["a", "b"],
        "minTrust": 0.85,
        "conversation": "c",
        "task": "t",
        "parent": "p",
        "timeoutMs": 1500,
        "budget": {"tokens": 12, "hops": 4},
        "datacontenttype": "text/markdown",
        "data": "# Plan\n",
    }


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--capability", "a b"], "capabilities.0: expected text"),
        (["--capability", "a", "--min-trust", "2"], "minTrust: expected 1.0 or less"),
        (["--capability", "a", "--budget", "tokens"], "expected KIND=AMOUNT"),
        (["--capability", "a", "--data", "-"], "--data is not application/json"),
        (["--capability", "a", "--data", "no-such-file"], "no-such-file"),
    ],
)
def test_new_tells_what_is_wrong_and_exits_2(arguments: list[str], told: str) -> None:
    made = packet("new", *arguments, stdin="hello")
    assert (made.exit_code, made.stdout) == (2, "")
    assert told in made.stderr


@pytest.fixture
def signed(key: Path) -> str:
    made = packet("new", "--capability", "a", "--id", "i", "--budget", "tokens=12", "--conversation", "it's")
    return packet("sign", "--key", key, "--kid", "planner", stdin=made.stdout).stdout


def test_verify_of_a_changed_packet_exits_3_with_the_reason(key: Path, signed: str) -> None:
    keys = key.with_name("jwks.json")
    changed = packet("verify", "--keys", keys, stdin=signed.replace('"tokens":12', '"tokens":99'))
    assert (changed.exit_code, changed.stdout) == (3, "")
    assert changed.stderr == "the signature by 'planner' does not fit the envelope\n"


def test_verify_with_others_keys_exits_3(tmp_path: Path, signed: str) -> None:
    (tmp_path / "others.json").write_text(json.dumps({"keys": [OctKey.generate_key(256).as_dict(private=True)]}))
    verified = packet("verify", "--keys", tmp_path / "others.json", stdin=signed)
    assert (verified.exit_code, verified.stderr) == (3, "no key has the kid 'planner'\n")


@pytest.mark.parametrize("command", [["show"], ["sign", "--key", "key.pem"], ["verify", "--keys", "jwks.json"]])
def test_what_is_no_envelope_exits_2_naming_the_member(command: list[str]) -> None:
    result = packet(*command, stdin='{"specversion": "1.0", "id": "i", "capabilities": ["a"], "task": 1}')
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("-: task: expected text")


def test_bad_keys_exit_2_naming_the_file(key: Path, signed: str) -> None:
    for command in (["sign", "--kid", "k", "--key"], ["verify", "--keys"]):
        for file in (key.with_name("missing"), Path(__file__)):
            result = packet(*command, file, stdin=signed)
            assert result.exit_code == 2
            assert str(file) in result.stderr


def test_a_jwk_names_itself_and_pem_has_to_be_named(key: Path, signed: str, tmp_path: Path) -> None:
    jwk = tmp_path / "jwk.json"
    jwk.write_text(json.dumps(OctKey.generate_key(256).as_dict(private=True) | {"kid": "mine"}))
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [json.loads(jwk.read_text())]}))
    again = packet("sign", "--key", jwk, stdin=signed)
    assert packet("verify", "--keys", tmp_path / "keys.json", stdin=again.stdout).stdout.endswith("signed by mine\n")
    unnamed = packet("sign", "--key", key, stdin=signed)
    assert unnamed.exit_code == 2
    assert "--kid" in unnamed.stderr


def test_show_reads_out_the_members_and_the_payload(tmp_path: Path) -> None:
    options = "--capability a --capability b --id i --budget tokens=12 --data -"
    made = packet("new", *options.split(), stdin="[1]")
    (tmp_path / "p.json").write_text(made.stdout)
    shown = packet("show", tmp_path / "p.json").stdout.splitlines()
    assert shown[1:4] == ["id              i", "capabilities    a, b", "budget          tokens=12"]
    assert shown[-3:] == ["payload         3 bytes", "", "[1]"]


def test_show_binary_gives_header_options_that_a_shell_and_curl_understand(signed: str) -> None:
    shown = packet("show", "--binary", stdin=signed)
    assert shlex.split(shown.stdout) == [
        "-H",
        "flight-capability: a",
        "-H",
        'flight-id: "i"',
        "-H",
        'flight-conversation: "it\'s"',
        "-H",
        "flight-budget: tokens=12",
    ]
