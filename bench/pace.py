"""A timer that keeps time: the event loop's own rounds to a millisecond, the kernel's timerfd does not."""

from __future__ import annotations

import ctypes
import os
import time

_libc = ctypes.CDLL(None, use_errno=True)
_CLOCK_MONOTONIC = 1
_ABSOLUTE = 1


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("it_interval", _Timespec), ("it_value", _Timespec))


class Timer:
    """Its `fd` becomes readable at the time set (Linux timerfd_create(2))."""

    def __init__(self) -> None:
        self.fd: int = _libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")

    def set(self, at: float) -> None:
        """Fire at `at`, in seconds of `time.monotonic`; at once when that has passed."""
        at = max(at, time.monotonic() - 1)
        seconds = int(at)
        value = _Itimerspec(_Timespec(0, 0), _Timespec(seconds, int((at - seconds) * 1e9)))
        if _libc.timerfd_settime(self.fd, _ABSOLUTE, ctypes.byref(value), None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def clear(self) -> None:
        """Take note that it fired."""
        os.read(self.fd, 8)

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.fd)
