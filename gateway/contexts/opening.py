"""The store that a configuration asks for."""

from __future__ import annotations

import time
from collections.abc import Callable

from gateway.contexts.cipher import Cipher, load_keys
from gateway.contexts.contexts import Contexts
from gateway.contexts.disk import DiskObjects
from gateway.contexts.objects import ObjectStore
from gateway.contexts.s3 import S3Objects
from gateway.contexts.spec import ContextSpec
from gateway.contexts.store import Store


def opened(spec: ContextSpec, redis_url: str, clock: Callable[[], float] = time.time) -> Contexts:
    """Contexts as `spec` has them; nothing is connected yet.

    Args:
        spec: the store, whose paths are absolute.
        redis_url: for ``store: redis``.
        clock: gives seconds since the epoch.

    Raises:
        KeyFileError: a key file cannot be used.
        ImportError: the client library for Redis is not installed.

    """
    store: Store
    if spec.folder is not None:
        store = ObjectStore(DiskObjects(spec.folder), spec.max_age_s)
    elif spec.s3 is not None:
        store = ObjectStore(S3Objects(spec.s3), spec.max_age_s)
    else:
        from gateway.contexts.redis_contexts import RedisContexts

        store = RedisContexts(redis_url, spec.max_age_s)
    return Contexts(spec, store, Cipher(load_keys(spec.keys)), clock)
