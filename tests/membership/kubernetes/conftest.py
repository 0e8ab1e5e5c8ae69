from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kube_api import KubeApi


@pytest.fixture
def api(tmp_path: Path) -> Iterator[KubeApi]:
    """An API server without objects."""
    server = KubeApi(tmp_path)
    yield server
    server.stop()
