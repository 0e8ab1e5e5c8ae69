"""docs/recorder.md tells every setting with its default, and what it says to do by hand works."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from gateway.recorder import RecorderSpec
from gateway.recorder.chain import read_line
from gateway.recorder.heads import load_signer
from gateway.recorder.segments import segments_in
from tests.recorder.making import add, chain_in, made

PAGE = (Path(__file__).parents[2] / "docs" / "recorder.md").read_text()
BY_HAND = PAGE.partition("### By hand")[2].partition("\n## ")[0]
CONSOLE = re.compile(r"```console\n(.*?)```", re.DOTALL)


def test_each_setting_has_the_default_that_the_page_says() -> None:
    text = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert text is not None
    told: dict[str, Any] = yaml.safe_load(text[1])["recorder"]
    assert set(told) == {field.alias for field in RecorderSpec.model_fields.values()}
    told.pop("key")
    assert RecorderSpec.model_validate(told) == RecorderSpec(folder=Path(told["folder"]))


@pytest.mark.skipif(not (shutil.which("jq") and shutil.which("openssl")), reason="jq or openssl is not installed")
def test_a_chain_can_be_verified_by_hand(tmp_path: Path) -> None:
    private = Ed25519PrivateKey.generate()
    signer = load_signer(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    chain = chain_in(tmp_path / "chain-0", signer=signer)
    add(chain, *(made((b"flight-task", b'"t-}"')) for _ in range(9)))
    chain.close()
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (chain.folder / "recorder.pem").write_bytes(public)
    (path,) = segments_in(chain.folder)
    line = read_line(path.read_bytes().splitlines(keepends=True)[6])
    script = "\n".join(each.removeprefix("$ ") for block in CONSOLE.findall(BY_HAND) for each in block.splitlines())
    done = subprocess.run(["bash", "-ec", script], cwd=chain.folder, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    digest, link, signature = done.stdout.splitlines()
    assert digest.split()[0] == line.digest
    assert link.split()[0] == line.hash
    assert signature == "Signature Verified Successfully"
