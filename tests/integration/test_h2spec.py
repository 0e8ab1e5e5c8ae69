"""h2spec against the listener: no failure, or each one explained."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gateway.proxy.codec import HTTP2_IMPLEMENTATION
from tests.conformance.test_http1 import answer_each
from tests.conftest import StartGateway, member

H2SPEC = next(
    (found for found in (shutil.which("h2spec"), Path(__file__).parents[2] / ".tools" / "h2spec") if found), None
)

EXPLAINED = {
    # The plaintext listener speaks HTTP/1.1 too: what is no HTTP/2 preface is read as HTTP/1.1, answered 400 and
    # closed (test_ambiguous_framing_is_answered_400_and_closed_and_reaches_no_agent).
    "Sends invalid connection preface",
    # h2spec names no capability, so its request is answered 400 on its head; when that answer is out before the bad
    # trailers are read, they fall on a finished stream.  An open stream is reset for them
    # (test_pseudo_fields_in_trailers_are_a_stream_error_and_the_body_is_never_whole).
    "Sends a HEADERS frame that contains a pseudo-header field as trailers",
}
if HTTP2_IMPLEMENTATION == "nghttp2":
    EXPLAINED |= {
        # Nothing is remembered of streams that are over, so a HEADERS frame there is left out and costs that stream
        # alone: it may be the trailers of a request that was reset.  Floods of it end the connection (`Kind.LATE`).
        "closed: Sends a HEADERS frame",
        "Sends stream identifier that is numerically smaller than previous",
        # A caller that says GOAWAY with nothing under way is let go at once; what h2spec sends after it may meet a TCP
        # reset, which it takes for no end of the connection.
        "Sends a GOAWAY frame",
        "Sends a GOAWAY frame with unknown error code",
    }
if HTTP2_IMPLEMENTATION == "jh2":
    EXPLAINED |= {
        # jh2's HPACK decoder takes both for what they plainly mean; no header that we pass on differs by it, since
        # every field is checked after decoding (test_a_bad_field_costs_its_stream_and_reaches_no_agent).
        "Sends a dynamic table size update at the end of header block",
        "Sends a Huffman-encoded string literal representation padded by zero",
    }


@pytest.mark.slow
@pytest.mark.skipif(H2SPEC is None or not Path(H2SPEC).exists(), reason="no h2spec: see tools/test-deps")
def test_h2spec_finds_nothing_unexplained(raw_agent, start_gateway: StartGateway) -> None:
    gateway = start_gateway([member(raw_agent(answer_each).port)])
    done = subprocess.run(
        [str(H2SPEC), "-h", "127.0.0.1", "-p", str(gateway.plain_port), "-o", "10"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    summary = re.search(r"(\d+) tests, (\d+) passed", done.stdout)
    assert summary is not None, done.stdout
    assert int(summary[1]) >= 140
    failures = done.stdout.partition("Failures:")[2]
    failed = {match.strip() for match in re.findall(r"× \d+: (.+)", failures)}
    assert failed <= EXPLAINED, failures
    assert gateway.admin("/healthz").status_code == 200
