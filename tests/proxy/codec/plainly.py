"""HTTP/1.1 codecs that read plain messages by the extension, and codecs that leave all to llhttp, side by side."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import TypeVar
from unittest import mock

import pytest

from gateway.proxy.codec import Http1Client, Http1Server, http1

try:
    from gateway.proxy.codec import _http1
except ImportError:
    native: ModuleType | None = None
else:
    native = _http1

takes_native = pytest.mark.skipif(
    native is None, reason="takes the extension for plain messages; tools/native makes it"
)

Made = TypeVar("Made", Http1Server, Http1Client)


def plain(make: Callable[[], Made]) -> Made:
    """What `make` makes, reading plain messages by the extension whatever the environment says."""
    assert native is not None
    with mock.patch.multiple(http1, read_request=native.read_request, read_response=native.read_response):
        return make()


def as_usual(make: Callable[[], Made]) -> Made:
    """What `make` makes, reading as a gateway here does."""
    return make()


def by_llhttp(make: Callable[[], Made]) -> Made:
    """What `make` makes, leaving every message to llhttp."""
    with mock.patch.multiple(http1, read_request=None, read_response=None):
        return make()


def state(codec: Http1Server | Http1Client) -> dict[str, object]:
    """All that `codec` knows, but for what only says how it reads."""
    apart = {"_parser", "_read_plain", "_left_bytes"}
    named = {name: getattr(codec, name) for name in dir(codec) if not name.startswith("__") and name not in apart}
    return {name: repr(value) for name, value in named.items() if not callable(value)}
