"""The image: how it is described, and how it runs where `make image-rehearsal` has built it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gateway import __version__
from gateway.demo import scenario
from gateway.demo.processes import Processes
from tests.conftest import RunningGateway, eventually
from tests.delivery import ROOT, rendered, tool
from tests.delivery.running import mounted

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
IMAGE = ROOT / ".rehearsal" / "root"
NOBODY = 65532
# What a container runtime does: a root that cannot be written to, with the volumes in it, and nobody's rights.
ENTER = r"""
set -eu
root="$1"; folder="$2"; shift 2
mount --bind "$root" "$root"
mount -t tmpfs none "$root/tmp"
mount -t tmpfs none "$root/var/lib/phoenixflight"
mkdir -p "$root$folder"
mount --bind "$folder" "$root$folder"
mount -t proc none "$root/proc"
mount -o remount,bind,ro "$root"
chmod 1777 "$root/tmp"; chown 65532:65532 "$root/var/lib/phoenixflight"
exec chroot "$root" setpriv --reuid 65532 --regid 65532 --clear-groups --no-new-privs --bounding-set=-all \
  env -i PATH=/opt/phoenixflight/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 "$@"
"""

built = pytest.mark.skipif(
    not IMAGE.exists() or os.geteuid() != 0, reason="no image in .rehearsal, or not root: make image-rehearsal"
)


def entering(folder: Path, *command: str) -> list[str]:
    """A command in the image's root, with `folder` in it at the same place."""
    return ["unshare", "--mount", "bash", "-c", ENTER, "enter", str(IMAGE), str(folder), *command]


def given_away(folder: Path) -> None:
    """Let nobody read `folder`, as the kubelet does with fsGroup."""
    subprocess.run(["chown", "-R", "-h", f"{NOBODY}:{NOBODY}", folder], check=True)


def test_hadolint_finds_nothing_wrong_with_the_dockerfile() -> None:
    beside = Path(sys.executable).with_name("hadolint")
    program = str(beside) if beside.exists() else shutil.which("hadolint")
    if program is None:
        pytest.skip("no hadolint")
    done = subprocess.run([program, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_image_is_pinned_by_digest_and_runs_as_nobody() -> None:
    stages = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert stages == ["scratch", "${BASE}${BASE_DIGEST}", "${BASE}${BASE_DIGEST}"]
    assert f"USER {NOBODY}:{NOBODY}" in DOCKERFILE
    assert f"ARG VERSION={__version__}" in DOCKERFILE
    assert 'CMD ["phoenixflight", "health"]' in DOCKERFILE


@built
def test_the_image_says_what_is_in_it() -> None:
    told = json.loads((IMAGE / "opt/phoenixflight/sbom.cdx.json").read_text())
    named = {each["name"]: each["version"] for each in told["components"]}
    assert named["phoenixflight-gateway"] == __version__
    installed = {path.name for path in (IMAGE / "opt/phoenixflight/lib").glob("python3.*/site-packages/*.dist-info")}
    assert len(named) >= len(installed)
    image = json.loads((ROOT / ".rehearsal" / "image.json").read_text())
    config: dict[str, Any] = image["OCIv1"]["config"]
    assert config["User"] == f"{NOBODY}:{NOBODY}"
    assert config["Labels"]["org.opencontainers.image.version"] == __version__
    assert not (IMAGE / "usr/bin/cc").exists()


@built
@pytest.mark.helm
@pytest.mark.slow
@pytest.mark.skipif(tool("helm") is None, reason="no helm")
def test_it_runs_as_nobody_on_a_root_that_cannot_be_written_and_stops_cleanly(tmp_path: Path, certs: Path) -> None:
    volumes = mounted(rendered({"kubernetes": {"enabled": False}}), tmp_path, certs)
    config = volumes.maps["settings"].folder / "gateway.yaml"
    given_away(tmp_path)
    with (tmp_path / "stderr.log").open("ab") as errors:
        process = subprocess.Popen(
            entering(tmp_path, "phoenixflight", "run", "--config", str(config)), stdout=errors, stderr=errors
        )
    gateway = RunningGateway(process, tmp_path, certs, 0, 0, volumes.admin_port)
    try:
        eventually(gateway.ready, 40)
        admin = ("--admin", f"http://127.0.0.1:{volumes.admin_port}")
        for arguments in (admin, ("--live", *admin)):
            assert (
                subprocess.run(entering(tmp_path, "phoenixflight", "health", *arguments), check=False).returncode == 0
            )
        told = gateway.admin("/status").json()
        assert (told["compiled"], told["http1"], told["http2"]) == (True, "native", "nghttp2")
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert re.search(rf"^Uid:\s+{NOBODY}\s+{NOBODY}\s", status, re.MULTILINE)
        assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
        write = "import pathlib, sys; pathlib.Path(sys.argv[1]).touch()"
        assert subprocess.run(entering(tmp_path, "python3", "-c", write, "/opt/x"), check=False).returncode != 0
        assert subprocess.run(entering(tmp_path, "python3", "-c", write, "/tmp/x"), check=False).returncode == 0
    finally:
        process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0, gateway.log()


@built
@pytest.mark.slow
async def test_the_demos_work_goes_through_it(monkeypatch: pytest.MonkeyPatch) -> None:
    start = Processes.start

    async def in_the_image(
        self: Processes, name: str, command: list[str], environment: dict[str, str], **more: Callable[[bytes], None]
    ) -> None:
        if name == "gateway":
            config = Path(command[-1])
            given_away(config.parent)
            command = entering(config.parent, "phoenixflight", *command[-3:])
        await start(self, name, command, environment, **more)

    monkeypatch.setattr(Processes, "start", in_the_image)
    try:
        await scenario.play(Console(quiet=True), stay=False)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().remove_signal_handler(number)
