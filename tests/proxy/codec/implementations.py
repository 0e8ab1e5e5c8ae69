"""The HTTP/2 codecs that are installed, so that a test can hold all of them to the same."""

from __future__ import annotations

from types import ModuleType

import pytest

from gateway.proxy.codec import http2
from gateway.proxy.codec.library import LIBRARY

try:
    from gateway.proxy.codec import nghttp2
except ImportError:
    native: ModuleType | None = None
else:
    native = nghttp2


class Implementation:
    """An HTTP/2 codec for each side."""

    def __init__(self, module: ModuleType) -> None:
        self.server = module.Http2Server
        self.client = module.Http2Client


IMPLEMENTATIONS = [pytest.param(Implementation(http2), id=LIBRARY)]
if native is not None:
    IMPLEMENTATIONS.append(pytest.param(Implementation(native), id="nghttp2"))
