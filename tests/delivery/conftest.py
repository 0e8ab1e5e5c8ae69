from __future__ import annotations

import pytest

from tests.delivery import ROOT, tool


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes Helm is skipped where there is none."""
    if tool("helm") is not None:
        return
    for item in items:
        if item.get_closest_marker("helm") is not None:
            item.add_marker(pytest.mark.skip(reason=f"no helm in {ROOT / '.tools'}: tools/test-deps builds it"))
