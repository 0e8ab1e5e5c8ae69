"""Whose HTTP/2 state machine it is: jh2's, where that is installed, else h2's.

In a module of its own, so that those who use it can be compiled: the types are h2's in any case.
"""

import os
from typing import TYPE_CHECKING

WANTED = os.environ.get("PHOENIXFLIGHT_HTTP2", "")
"""The HTTP/2 implementation that is asked for; empty for the best that is installed.  See `implementation`."""

if TYPE_CHECKING:
    import h2
    import h2.config
    import h2.connection
    import h2.errors
    import h2.events
    import h2.exceptions
    import h2.frame_buffer
    import h2.settings
    import h2.stream
else:
    try:
        if WANTED == "h2":
            raise ImportError
        import jh2 as h2
        import jh2.config
        import jh2.connection
        import jh2.errors
        import jh2.events
        import jh2.exceptions
        import jh2.frame_buffer
        import jh2.settings
        import jh2.stream  # noqa: F401 - bound as an attribute of the package
    except ImportError:
        if WANTED == "jh2":
            raise
        import h2
        import h2.config
        import h2.connection
        import h2.errors
        import h2.events
        import h2.exceptions
        import h2.frame_buffer
        import h2.settings
        import h2.stream

__all__ = ["LIBRARY", "WANTED", "h2"]

LIBRARY: str = h2.__name__
"""``jh2`` or ``h2``."""
