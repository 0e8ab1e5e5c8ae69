"""A real S3 server over a folder: versitygw, where it could be built."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import httpx

from tests.waiting import eventually, free_port

PROGRAM = Path(__file__).parents[2] / ".tools" / "versitygw"
ACCESS, SECRET = "access", "secret-of-the-server"


class S3Server:
    """One with a bucket ``contexts``."""

    def __init__(self, folder: Path, program: Path) -> None:
        self.folder = folder / "s3"
        (self.folder / "contexts").mkdir(parents=True)
        self.endpoint = f"http://127.0.0.1:{free_port()}"
        self.credentials = folder / "credentials"
        self.credentials.write_text(f"[default]\naws_access_key_id = {ACCESS}\naws_secret_access_key = {SECRET}\n")
        command = [str(program), "--port", self.endpoint.removeprefix("http://"), "--quiet", "posix", str(self.folder)]
        environment = {**os.environ, "ROOT_ACCESS_KEY": ACCESS, "ROOT_SECRET_KEY": SECRET}
        self._process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        eventually(self._answers)

    def _answers(self) -> bool:
        try:
            return httpx.get(self.endpoint, timeout=2, trust_env=False).status_code > 0
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)
