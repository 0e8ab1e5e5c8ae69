"""Secrets in files: read as a whole when files change, used from memory."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from gateway.documents import Problem

MAX_SECRET_BYTES: Final = 8192
"""With the line end; what is longer fits in no header."""

# RFC 9110 section 5.5: what a field's value may be, without obs-text; a line end would begin another field.
_USABLE = re.compile(r"[!-~](?:[\t -~]*[!-~])?")


class Secrets:
    """What stands in the files; its own text tells nothing of it."""

    __slots__ = ("_texts",)

    def __init__(self, texts: Mapping[Path, str] | None = None) -> None:
        self._texts = dict(texts or {})

    def get(self, file: Path) -> str | None:
        """The secret in `file`; ``None`` where it has never held one that can be used."""
        return self._texts.get(file)

    def have(self, files: Iterable[Path]) -> bool:
        """Whether there is a secret of each of `files`."""
        return all(file in self._texts for file in files)


NO_SECRETS = Secrets()


def read_secrets(files: Iterable[Path], before: Secrets = NO_SECRETS) -> tuple[Secrets, tuple[Problem, ...]]:
    """The secrets in `files`, and what is wrong with those that cannot be used, whose last good ones stay.

    Args:
        files: to be read, a mounted Secret's among them: what a link leads to now is what counts.
        before: what was read last.

    """
    texts: dict[Path, str] = {}
    problems: list[Problem] = []
    for file in sorted(files):
        try:
            texts[file] = _read(file)
        except (OSError, ValueError) as error:
            why = (error.strerror or type(error).__name__) if isinstance(error, OSError) else str(error)
            problems.append(Problem(str(file), 1, 1, f"the secret in it cannot be used: {why}"))
            last = before.get(file)
            if last is not None:
                texts[file] = last
    return Secrets(texts), tuple(problems)


def _read(file: Path) -> str:
    """The secret in `file`, without the end of its line.

    Raises:
        OSError: it cannot be read.
        ValueError: there is none in it; the message repeats nothing of what is.

    """
    if not stat.S_ISREG(file.stat().st_mode):  # a FIFO would keep whoever opens it waiting
        raise ValueError("not a regular file")
    with file.open("rb") as opened:
        octets = opened.read(MAX_SECRET_BYTES + 1)
    if len(octets) > MAX_SECRET_BYTES:
        raise ValueError(f"larger than {MAX_SECRET_BYTES} bytes")
    text = octets.decode("latin-1").rstrip("\r\n")
    if _USABLE.fullmatch(text) is None:
        raise ValueError("expected one line of printable ASCII")
    return text
