"""A LangGraph graph that hands a step on.  The node `count` asks whoever has `text.count`, by way of the gateway.

A thread of LangGraph is a conversation of the gateway's: its steps find the same agent again.  In an agent that was
asked itself, give the graph what has arrived, and each step is handed on under its credential:
``graph.invoke(state, {"configurable": {"thread_id": arrival.conversation, "arrival": arrival}})``.

There is no model in it, so that it runs anywhere; put yours into `draft`.
"""

import os
import ssl
import sys
from typing import TypedDict

import httpx
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph

from gateway.agent import Arrival


class State(TypedDict, total=False):
    """What the graph knows."""

    goal: str
    draft: str
    words: int
    counted_by: str


def gateway() -> httpx.Client:
    """A client that shows our certificate and believes the mesh's roots alone."""
    context = ssl.create_default_context(cafile=os.environ.get("FLIGHT_CA", "certs/ca.pem"))
    context.load_cert_chain(
        os.environ.get("FLIGHT_CERT", "certs/caller.pem"), os.environ.get("FLIGHT_KEY", "certs/caller-key.pem")
    )
    address = os.environ.get("FLIGHT_GATEWAY", "https://127.0.0.1:8443")
    return httpx.Client(base_url=address, verify=context, timeout=30, trust_env=False)


def build(client: httpx.Client):
    """The graph: draft, then count, then again until the draft is short enough."""

    def draft(state: State) -> State:
        words = state.get("draft", state["goal"]).split()
        return {"draft": " ".join(words if "words" not in state else words[: len(words) // 2])}

    def count(state: State, config: RunnableConfig) -> State:
        arrival: Arrival | None = config["configurable"].get("arrival")
        if arrival is not None:
            headers = arrival.headers("text.count", budget={"tokens": 100})
        else:  # the work begins here
            thread = config["configurable"]["thread_id"]
            headers = {"flight-capability": "text.count", "flight-conversation": f'"{thread}"'}
        answer = client.post("/count", json={"text": state["draft"]}, headers=headers)
        if answer.is_error:
            # A refusal is application/problem+json: its detail says what to change.
            raise RuntimeError(answer.json().get("detail", answer.text))
        return {"words": answer.json()["words"], "counted_by": answer.headers["flight-agent"]}

    graph = StateGraph(State)
    graph.add_node("draft", draft)
    graph.add_node("count", count)
    graph.add_edge(START, "draft")
    graph.add_edge("draft", "count")
    graph.add_conditional_edges("count", lambda state: END if state["words"] <= 5 else "draft")
    return graph.compile(checkpointer=InMemorySaver())


def main() -> None:
    """Shorten the arguments to five words at the most."""
    goal = " ".join(sys.argv[1:]) or "hand each piece of this work on to whoever can do it best and soonest"
    with gateway() as client:
        done = build(client).invoke({"goal": goal}, {"configurable": {"thread_id": "thread-1"}})
    print(f"{done['draft']!r}: {done['words']} words, counted by {done['counted_by']}")


if __name__ == "__main__":
    main()
