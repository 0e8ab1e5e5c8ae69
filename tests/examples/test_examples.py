"""Each example does what it says, with the client that people have, through a real gateway."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import httpx
import pytest

from gateway.agent import Arrival
from tests.examples.conftest import EXAMPLES, PYTHON, Mesh, example, needs

pytestmark = pytest.mark.slow

SENTENCE = "one two three four"
COUNTER = [PYTHON, example("aiohttp/agent.py")]


@pytest.fixture(scope="module")
def counting(mesh: Mesh) -> Mesh:
    """The mesh with an agent that counts words."""
    pytest.importorskip("aiohttp", reason="no aiohttp: pip install --group examples")
    mesh.start("aiohttp", *COUNTER)
    return mesh


def test_curl_asks_with_a_certificate_and_a_header(counting: Mesh) -> None:
    needs("curl")
    done = counting.ask("sh", example("curl/ask.sh"), SENTENCE)
    assert (done.returncode, json.loads(done.stdout)["words"]) == (0, 4), done.stderr
    assert counting.gateway.handoff(agent="aiohttp", outcome="completed")["from"].endswith("/sa/caller")


def test_curl_fails_with_the_words_of_a_refusal(counting: Mesh) -> None:
    needs("curl")
    done = counting.ask("sh", example("curl/ask.sh"), **counting.as_stranger())
    assert done.returncode != 0
    assert json.loads(done.stdout)["type"] == "urn:phoenixflight:no-policy-allows"


def test_curl_reaches_an_agent_by_its_proxy_alone(counting: Mesh) -> None:
    needs("curl")
    done = counting.ask(
        "sh", example("curl/by-proxy.sh"), SENTENCE, HTTPS_PROXY=counting.gateway.plain_url, NO_PROXY="", no_proxy=""
    )
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["words"] for line in done.stdout.splitlines() if line] == [4, 4]


def test_httpx_asks_twice_in_one_conversation(counting: Mesh) -> None:
    done = counting.ask(PYTHON, example("httpx/ask.py"), SENTENCE, "five")
    assert done.stdout == '4 words, counted by "aiohttp"\n1 words, counted by "aiohttp"\n', done.stderr


def test_httpx_is_told_why_it_is_refused(counting: Mesh) -> None:
    done = counting.ask(PYTHON, example("httpx/ask.py"), **counting.as_stranger())
    assert done.returncode == 1
    assert done.stderr.startswith("refused: No policy allows this packet: ")


def test_a_program_that_knows_nothing_of_the_gateway_reaches_an_agent(counting: Mesh) -> None:
    done = counting.ask(
        PYTHON,
        example("httpx/by_proxy.py"),
        SENTENCE,
        HTTPS_PROXY=counting.gateway.plain_url,
        SSL_CERT_FILE="certs/connect-ca.pem",
    )
    assert done.stdout == "4\n", done.stderr


def test_aiohttp_asks(counting: Mesh) -> None:
    done = counting.ask(PYTHON, example("aiohttp/ask.py"), SENTENCE)
    assert done.stdout == '4 words, counted by "aiohttp"\n', done.stderr


def test_an_agent_with_mtls_lets_nobody_in_but_the_gateway(counting: Mesh) -> None:
    pytest.importorskip("aiohttp", reason="no aiohttp: pip install --group examples")
    needs("curl")
    done = counting.ask("sh", example("curl/ask.sh"), FLIGHT_GATEWAY=f"https://{counting.address('aiohttp')}")
    assert done.returncode != 0
    assert "only the gateway may ask this agent" in done.stdout


def test_fastapi_hands_the_counting_on(counting: Mesh) -> None:
    pytest.importorskip("fastapi", reason="no fastapi: pip install --group examples")
    pytest.importorskip("uvicorn", reason="no uvicorn: pip install 'phoenixflight-gateway[demo]'")
    folder = str(EXAMPLES / "fastapi")
    counting.start("fastapi", PYTHON, "-m", "uvicorn", "--app-dir", folder, "--port", "PORT", "agent:app")
    with counting.gateway.client("caller") as caller:
        headers = {"flight-capability": "text.report", "flight-conversation": '"report-1"'}
        answer = caller.post("/report", json={"text": SENTENCE}, headers=headers)
    assert answer.json() == {"report": "4 words", "for": "spiffe://mesh.local/ns/agents/sa/caller"}
    asked = counting.gateway.handoff(capability="text.report")
    handed_on = counting.gateway.handoff(capability="text.count", parent=asked["flight_id"])
    assert handed_on["from"] == "spiffe://mesh.local/ns/agents/sa/reporter"
    assert handed_on["conversation"] == asked["conversation"]


def test_langgraph_hands_a_node_on_and_its_thread_is_a_conversation(counting: Mesh) -> None:
    pytest.importorskip("langgraph", reason="no langgraph: pip install --group examples")
    done = counting.ask(PYTHON, example("langgraph/graph.py"), "one two three four five six")
    assert done.stdout == "'one two three': 3 words, counted by \"aiohttp\"\n", done.stderr
    handoffs = [each for each in counting.gateway.handoffs() if each.get("conversation") == "thread-1"]
    assert len(handoffs) == 2


def test_a_graph_in_an_agent_hands_its_steps_on_under_what_has_arrived() -> None:
    pytest.importorskip("langgraph", reason="no langgraph: pip install --group examples")
    graph = runpy.run_path(example("langgraph/graph.py"))
    arrival = Arrival.received(
        {
            "flight-from": '"spiffe://mesh.local/ns/agents/sa/caller"',
            "flight-id": '"packet-1"',
            "flight-capability": "text.report",
            "flight-conversation": '"thread-2"',
        }
    )
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json={"words": 4}, headers={"flight-agent": '"counter"'})

    with httpx.Client(transport=httpx.MockTransport(answer), base_url="https://gateway") as client:
        config = {"configurable": {"thread_id": arrival.conversation, "arrival": arrival}}
        done = graph["build"](client).invoke({"goal": SENTENCE}, config)
    assert done["counted_by"] == '"counter"'
    told = asked[0].headers
    assert (told["flight-parent"], told["flight-conversation"]) == ('"packet-1"', '"thread-2"')
    assert told["flight-budget"] == "tokens=100"


def test_a2a_speaks_through_the_gateway(mesh: Mesh) -> None:
    pytest.importorskip("a2a", reason="no a2a-sdk: pip install 'phoenixflight-gateway[demo]'")
    mesh.start("a2a", PYTHON, example("a2a/agent.py"))
    done = mesh.ask(PYTHON, example("a2a/ask.py"), SENTENCE)
    assert done.stdout.splitlines() == [
        "asked by spiffe://mesh.local/ns/agents/sa/caller",
        "summary: one two three",
    ], done.stderr
    assert mesh.gateway.handoff(agent="a2a", usage="tokens=4")


def test_mcp_calls_a_tool_through_the_gateway(mesh: Mesh) -> None:
    pytest.importorskip("mcp", reason="no mcp: pip install 'phoenixflight-gateway[demo]'")
    mesh.start("mcp", PYTHON, example("mcp/server.py"))
    done = mesh.ask(PYTHON, example("mcp/ask.py"), SENTENCE)
    assert done.stdout == "4 words\n", done.stderr


def test_node_is_asked_and_asks(tmp_path: Path, example_certs: Path) -> None:
    node = needs("node")
    mesh = Mesh(tmp_path, example_certs)
    try:
        mesh.start("node", node, example("node/agent.mjs"))
        done = mesh.ask(node, example("node/ask.mjs"), SENTENCE)
        assert done.stdout == '4 words, counted by "node"\n', done.stderr
        refused = mesh.ask(node, example("node/ask.mjs"), **mesh.as_stranger())
        assert refused.returncode == 1
        assert refused.stderr.startswith("refused: No policy allows this packet: ")
        direct = mesh.ask(node, example("node/ask.mjs"), FLIGHT_GATEWAY=f"https://{mesh.address('node')}")
        assert direct.returncode != 0, "it lets nobody in but the gateway"
    finally:
        mesh.stop()


def test_every_example_is_on_the_page() -> None:
    page = (EXAMPLES.parent / "docs" / "examples.md").read_text()
    for folder in EXAMPLES.iterdir():
        assert f"examples/{folder.name}" in page
