"""Random envelopes, as parsed JSON documents."""

from __future__ import annotations

import base64
from typing import Any

from hypothesis import strategies as st

texts = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=20)
tokens = st.from_regex(r"[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]{0,10}", fullmatch=True)
keys = st.from_regex(r"[a-z*][a-z0-9_.*-]{0,10}", fullmatch=True)
values = st.from_regex(r"[!-~]([ -~]{0,10}[!-~])?", fullmatch=True)
counts = st.integers(0, 10**15 - 1)
principals = st.sampled_from(["spiffe://mesh.local/ns/agents/sa/planner", "spiffe://other/x"])
unicode = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | unicode,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(unicode, inner, max_size=3),
    max_leaves=6,
)
base64s = st.binary(max_size=20).map(lambda body: base64.b64encode(body).decode())

payloads: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"data": json_values}),
    st.fixed_dictionaries({"data": json_values, "datacontenttype": st.just("application/problem+json")}),
    st.fixed_dictionaries({"data": unicode, "datacontenttype": st.just("text/plain")}),
    st.fixed_dictionaries({"data_base64": base64s}, optional={"datacontenttype": st.just("image/png")}),
)
headers: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"specversion": st.just("1.0"), "id": texts, "capabilities": st.lists(tokens, min_size=1, max_size=3, unique=True)},
    optional={
        "minTrust": st.integers(0, 1000).map(lambda thousandths: thousandths / 1000),
        "conversation": texts,
        "task": texts,
        "parent": texts,
        "timeoutMs": st.integers(1, 10**15 - 1),
        "budget": st.dictionaries(keys, counts, max_size=3),
        "context": st.fixed_dictionaries(
            {"sha-256": st.binary(min_size=32, max_size=32).map(lambda raw: base64.b64encode(raw).decode())},
            optional={"ref": texts},
        ),
        "credential": st.from_regex(r"[A-Za-z0-9._~+/-]{1,20}={0,2}", fullmatch=True),
        "from": principals,
        "lineage": st.lists(principals, max_size=3),
        "traceparent": values,
        "tracestate": values,
        "baggage": values,
        "extensions": st.dictionaries(st.sampled_from(["flight-trial", "flight-x_y"]), values, max_size=2),
    },
)
documents = st.tuples(headers, payloads).map(lambda parts: parts[0] | parts[1])
"""Documents that are envelopes."""
