from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kube_api import KubeApi


@pytest.fixture(scope="module")
def kube_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeApi]:
    server = KubeApi(tmp_path_factory.mktemp("kube"))
    yield server
    server.stop()


@pytest.fixture
def api(kube_api: KubeApi) -> KubeApi:
    """An API server without objects."""
    kube_api.reset()
    return kube_api
