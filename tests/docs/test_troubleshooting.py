"""docs/troubleshooting.md tells of every refusal, with its status."""

from __future__ import annotations

import re
from pathlib import Path

from gateway.refusal import Reason

PAGE = (Path(__file__).parents[2] / "docs" / "troubleshooting.md").read_text()


def test_every_refusal_is_on_the_page_with_its_status() -> None:
    told = {slug: int(status) for slug, status in re.findall(r"^\| `([a-z-]+)` \| (\d{3}) \|", PAGE, re.MULTILINE)}
    assert told == {reason.slug: reason.status for reason in Reason}
