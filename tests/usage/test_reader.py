"""Usage is read from the streams that agents answer with.

The streams are written by hand after the documented formats of OpenAI's and Anthropic's APIs and of A2A.
"""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.messages import Fields
from gateway.usage import UsageReader, written
from gateway.usage.window import MAX_DOCUMENT

SSE: Fields = [(b"content-type", b"text/event-stream; charset=utf-8")]
JSON: Fields = [(b"content-type", b"application/json")]


def events(*documents: object, named: bool = False) -> bytes:
    """A stream of them."""
    lines = []
    for document in documents:
        if named:
            assert isinstance(document, dict)
            lines.append(f"event: {document['type']}\n")
        lines.append(f"data: {document if isinstance(document, str) else json.dumps(document)}\n\n")
    return "".join(lines).encode()


def chunk(**more: object) -> dict[str, object]:
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [], "usage": None, **more}


CHAT = events(
    chunk(choices=[{"index": 0, "delta": {"content": "Hel"}}]),
    chunk(choices=[{"index": 0, "delta": {"content": 'say "usage": {"total_tokens": 9999}'}}]),
    chunk(usage={"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29}),
    "[DONE]",
)
RESPONSES = events(
    {"type": "response.created", "response": {"id": "resp_1", "status": "in_progress", "usage": None}},
    {"type": "response.output_text.delta", "delta": "Hi"},
    {
        "type": "response.completed",
        "response": {
            "id": "resp_1",
            "usage": {
                "input_tokens": 37,
                "input_tokens_details": {"cached_tokens": 30},
                "output_tokens": 11,
                "total_tokens": 48,
            },
        },
    },
    named=True,
)
ANTHROPIC = events(
    {"type": "message_start", "message": {"id": "msg_1", "usage": {"input_tokens": 25, "output_tokens": 1}}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
    {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 9}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 15}},
    {"type": "message_stop"},
    named=True,
)
# a2a-sdk for Python writes whole numbers as 812.0: its metadata are a Struct of protocol buffers.
A2A = events(
    {"jsonrpc": "2.0", "id": 1, "result": {"kind": "status-update", "metadata": {"usage": {"tokens": 100}}}},
    {
        "jsonrpc": "2.0",
        "id": 1,
        "result": {"kind": "status-update", "final": True, "metadata": {"usage": {"tokens": 812.0, "cost": 3}}},
    },
)
STREAMS = {
    "chat completions": (CHAT, {"tokens": 29}),
    "responses": (RESPONSES, {"tokens": 48}),
    "messages": (ANTHROPIC, {"tokens": 40}),
    "two messages": (ANTHROPIC + ANTHROPIC.replace(b"msg_1", b"msg_2"), {"tokens": 80}),
    "a2a": (A2A, {"tokens": 812, "cost": 3}),
    "carriage returns": (ANTHROPIC.replace(b"\n", b"\r\n"), {"tokens": 40}),
    "nothing of usage": (b"data: hello\n\n: usage\n\n", {}),
}


@pytest.mark.parametrize("name", STREAMS)
@given(cuts=st.lists(st.integers(0, 1200), max_size=8))
def test_a_stream_s_total_is_read_however_it_is_cut(name: str, cuts: list[int]) -> None:
    stream, total = STREAMS[name]
    reader = UsageReader(SSE)
    at = 0
    for cut in (*sorted(cuts), len(stream)):
        reader.feed(stream[at : max(at, cut)])
        at = max(at, cut)
    reader.end(None)
    assert reader.spent == total


@pytest.mark.parametrize(
    ("body", "total"),
    [
        ({"id": "chatcmpl-1", "choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 12}}, {"tokens": 21}),
        ({"id": "resp_1", "output": [], "usage": {"input_tokens": 36, "output_tokens": 87}}, {"tokens": 123}),
        (
            {
                "type": "message",
                "usage": {"input_tokens": 5, "cache_read_input_tokens": 100, "output_tokens": 7},
            },
            {"tokens": 112},
        ),
        ({"jsonrpc": "2.0", "id": 1, "result": {"metadata": {"usage": {"tokens": 5}}}}, {"tokens": 5}),
        ({"result": {"deep": {"usage": {"total_tokens": 5}}}}, {}),
        ({"usage": {"total_tokens": -5}}, {}),
        ({"usage": "a lot"}, {}),
        ([1], {}),
        ({"text": "x" * MAX_DOCUMENT, "usage": {"total_tokens": 5}, "end": 1}, {"tokens": 5}),
        ({"text": "x" * MAX_DOCUMENT, "deep": {"usage": {"total_tokens": 5}}}, {}),
    ],
)
def test_a_whole_body_s_total_is_read(body: object, total: dict[str, int]) -> None:
    reader = UsageReader(JSON)
    text = json.dumps(body).encode()
    for at in range(0, len(text), 1000):
        reader.feed(text[at : at + 1000])
        assert reader.held <= MAX_DOCUMENT
    reader.end(None)
    assert reader.spent == total


def test_what_the_agent_says_itself_goes_before_the_rest() -> None:
    reader = UsageReader([*SSE, (b"flight-usage", b"tokens=7, spoilt=-1, told=?1")])
    assert reader.spent == {"tokens": 7}
    reader.feed(A2A)
    assert reader.spent == {"tokens": 7, "cost": 3}
    reader.end([(b"flight-usage", b"tokens=8")])
    assert reader.spent == {"cost": 3, "tokens": 8}
    assert written(reader.read) == "cost=3"


def test_of_a_compressed_body_only_the_fields_are_read() -> None:
    reader = UsageReader([*SSE, (b"content-encoding", b"gzip"), (b"flight-usage", b"cost=1")])
    reader.feed(CHAT)
    assert (reader.spent, reader.held) == ({"cost": 1}, 0)
