"""What docs/agents.md shows runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

DOCUMENT = Path(__file__).parents[2] / "docs" / "agents.md"


def test_the_examples_run_one_after_the_other(certs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "certs").symlink_to(certs)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "examples"}
    for code in re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE):
        exec(compile(code, DOCUMENT.name, "exec"), names)
    assert names["result"]["for"] == "spiffe://mesh.local/ns/agents/sa/planner"
    assert names["result"]["answer"] == 42
    names["client"].close()
