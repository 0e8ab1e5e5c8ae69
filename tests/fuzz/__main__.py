"""``python -m tests.fuzz TARGET [MINUTES]``: fuzz with atheris, led by coverage; new inputs go to ``.fuzz/TARGET``.

What breaks a promise is written to ``.fuzz/TARGET/broken-…``; once understood, keep it in ``corpus/TARGET``.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["gateway", "h2", "jh2", "hpack", "hyperframe", "http_sf"]):
    from tests.fuzz.targets import TARGETS

from tests.fuzz import CORPUS

MAX_BYTES = 4096
_INPUT_TIMEOUT_S = 10


def main() -> None:
    name = sys.argv[1]
    minutes = float(sys.argv[2]) if len(sys.argv) > 2 else 1.0
    found = CORPUS.parents[2] / ".fuzz" / name
    found.mkdir(parents=True, exist_ok=True)
    kept = CORPUS / name
    options = {
        "max_total_time": max(1, int(minutes * 60)),
        "max_len": MAX_BYTES,
        "timeout": _INPUT_TIMEOUT_S,
        "rss_limit_mb": 2048,
        "artifact_prefix": f"{found}/broken-",
        "print_final_stats": 1,
    }
    atheris.Setup(
        [sys.argv[0], *(f"-{option}={value}" for option, value in options.items()), str(found), str(kept)],
        TARGETS[name],
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
