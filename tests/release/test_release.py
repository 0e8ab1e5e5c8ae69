"""What a release promises: one version, a wheel that comes out the same, licences, a CI that does what .ci/run does."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

import gateway

ROOT = Path(__file__).parents[2]
SOURCE = ("gateway", "pyproject.toml", "hatch_build.py", "README.md", "LICENSE", ".gitignore")


def wheel(folder: Path, source: Path) -> Path:
    """The plain wheel of the project, built from a copy in `folder`."""
    for name in SOURCE:
        if (source / name).is_dir():
            shutil.copytree(source / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            folder.mkdir(exist_ok=True)
            shutil.copy(source / name, folder / name)
    for number, path in enumerate(sorted(folder.rglob("*"))):
        os.utime(path, (1_700_000_000 + number, 1_700_000_000 + number))  # when a file was checked out says nothing
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel"],
        cwd=folder,
        env={**os.environ, "SOURCE_DATE_EPOCH": "1790000000", "PYTHONPATH": ""},
        check=True,
        capture_output=True,
    )
    (built,) = (folder / "dist").glob("*.whl")
    return built


def test_the_wheel_comes_out_the_same_to_the_byte(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="no hatchling: it is of the group dev")
    first, second = wheel(tmp_path / "here", ROOT), wheel(tmp_path / "and-there", ROOT)
    assert first.name == second.name == f"phoenixflight_gateway-{gateway.__version__}-py3-none-any.whl"
    assert first.read_bytes() == second.read_bytes()
    inside = zipfile.ZipFile(first).namelist()
    assert "gateway/cli/__init__.py" in inside
    assert not [name for name in inside if name.endswith((".so", ".c", ".pyc"))]
    assert {name.split("/")[0] for name in inside} == {"gateway", first.name.rsplit("-", 3)[0] + ".dist-info"}


def test_the_changelog_begins_with_this_version() -> None:
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == gateway.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+(rc\d+)?", gateway.__version__)


def test_the_workflow_does_what_ci_run_does() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yaml").read_text())["jobs"]
    commands = {step["run"] for job in jobs.values() for step in job["steps"] if "run" in step}
    assert {".ci/run", "make docs", "make audit"} <= commands
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_licences_are_told_from_each_other() -> None:
    not_allowed = runpy.run_path(str(ROOT / "tools" / "audit"))["not_allowed"]
    assert not_allowed("BSD-3-Clause AND 0BSD AND (MIT OR Zlib)") == []
    assert not_allowed("Apache Software License; MIT License") == []
    assert not_allowed("ISC License (ISCL)") == []
    assert not_allowed("MIT AND GPL-3.0-only") == ["GPL-3.0-only"]
    assert not_allowed("UNKNOWN") == ["UNKNOWN"]


def test_everything_that_users_get_may_be_passed_on() -> None:
    if not (Path(sys.executable).parent / "pip-licenses").exists():
        pytest.skip("no pip-licenses: pip install --group audit, or make audit")
    done = subprocess.run([sys.executable, ROOT / "tools" / "audit", "--offline"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
