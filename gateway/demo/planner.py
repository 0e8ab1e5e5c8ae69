"""Takes a goal from a person and sees it through.  Capability: ``agent.plan``; A2A (JSON-RPC, streaming) over h2.

It sends the coder a goal and a test, passes the code on to its own caller as it is being written, and keeps
whoever offers ``notify.progress`` informed over a WebSocket.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from a2a.helpers import new_task_from_user_message, new_text_message, new_text_part
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, AgentSkill
from starlette.applications import Starlette
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from gateway.agent import Arrival
from gateway.demo.peer import Settings, client_tls, gateway_client, in_words, raise_for_problem, serve_http2

TESTS = {
    "primes": 'assert answer == 1060, f"expected 1060, got {answer}"',
    "fibonacci": 'assert answer == 12586269025, f"expected 12586269025, got {answer}"',
}
"""By a word of the goal: how to tell that it has been reached."""

PROGRESS_BUDGET = {"tokens": 50, "cost": 1}
CODE_BUDGET = {"tokens": 1000, "cost": 10}
"""What each part of the work may spend; both are under way at once."""


def progress_channel(packet: Arrival, settings: Settings) -> connect:
    """A WebSocket to whoever takes progress, through the gateway; to be entered."""
    tls = client_tls(settings)
    tls.set_alpn_protocols(["http/1.1"])
    return connect(
        settings.gateway.replace("https:", "wss:") + "/progress",
        ssl=tls,
        proxy=None,
        additional_headers=packet.headers("notify.progress", budget=PROGRESS_BUDGET),
    )


class Planner(AgentExecutor):
    """The agent's work on one task."""

    def __init__(self, settings: Settings, gateway: httpx.AsyncClient) -> None:
        self._settings = settings
        self._gateway = gateway

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Have the goal of the caller's message reached, and tell the caller as it goes."""
        assert context.message is not None
        task = context.current_task or new_task_from_user_message(context.message)
        await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        packet = Arrival.received(context.call_context.state["headers"])
        try:
            run = await self._reach(context.get_user_input(), packet, updater)
        except (httpx.HTTPError, WebSocketException) as error:
            await updater.failed(new_text_message(f"the work could not be handed on. {in_words(error)}"))
            return
        if not run["ok"]:
            await updater.failed(new_text_message(f"the goal was not reached. {run['output']}"))
            return
        await updater.add_artifact([new_text_part(json.dumps(run))], name="result")
        words = new_text_message(f"{run['review']['verdict']}: the answer is {run['output']}")
        # What the planner spent itself, where the gateway finds it in A2A.
        words.metadata.update({"usage": {"tokens": len(context.get_user_input().split())}})
        await updater.complete(words)

    async def _reach(self, goal: str, packet: Arrival, updater: TaskUpdater) -> dict[str, Any]:
        """The last run of the code that the coder writes for `goal`."""
        test = next((test for word, test in TESTS.items() if word in goal.lower()), "")
        run: dict[str, Any] = {"ok": False, "output": "nothing was run"}
        async with progress_channel(packet, self._settings) as progress:

            async def tell(text: str) -> None:
                await progress.send(json.dumps({"text": text}))
                await progress.recv()  # the acknowledgement
                await updater.start_work(new_text_message(text))

            await tell(f"planned: write it, test it, have it reviewed. Goal: {goal}")
            draft, begun = 1, False
            async for event in self._have_written(goal, test, packet):
                if "token" in event:
                    part = new_text_part(event["token"])
                    await updater.add_artifact([part], artifact_id=f"draft-{draft}", name="draft", append=begun)
                    begun = True
                elif "failed" in event:
                    run = {"ok": False, "output": event["failed"]}
                else:
                    run = event["run"]
                    draft, begun = draft + 1, False
                    outcome = "passed, it printed" if run["ok"] else "failed with"
                    await tell(f"{run['agent']} ran the draft: its test {outcome} {run['output']}")
        return run

    async def _have_written(self, goal: str, test: str, packet: Arrival) -> AsyncIterator[dict[str, Any]]:
        """What the coder streams, event by event."""
        onward, job = packet.onward(self._gateway), {"goal": goal, "test": test}
        async with onward.stream("code.write", "/write", budget=CODE_BUDGET, json=job) as response:
            await raise_for_problem(response)
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    yield json.loads(line.removeprefix("data: "))

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Nothing is kept of a task, so there is nothing to undo."""
        assert context.current_task is not None
        await TaskUpdater(event_queue, context.current_task.id, context.current_task.context_id).cancel()


def agent_card(settings: Settings) -> AgentCard:
    """What the planner says of itself; its address is the gateway's, for that is the only way in."""
    return AgentCard(
        name="planner",
        description="Has small programs written, tested and reviewed",
        version="1.0.0",
        supported_interfaces=[
            AgentInterface(url=f"{settings.gateway}/a2a", protocol_binding="JSONRPC", protocol_version="1.0")
        ],
        capabilities=AgentCapabilities(streaming=True),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[AgentSkill(id="plan", name="plan", description="Reach a goal by a program", tags=["code"])],
    )


def create_app(settings: Settings) -> Starlette:
    """The planner as an ASGI application."""
    gateway = gateway_client(settings)
    card = agent_card(settings)
    handler = DefaultRequestHandler(Planner(settings, gateway), InMemoryTaskStore(), card)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with gateway:
            yield

    return Starlette(
        routes=[*create_agent_card_routes(card), *create_jsonrpc_routes(handler, rpc_url="/a2a")],
        lifespan=lifespan,
    )


if __name__ == "__main__":
    here = Settings.from_environment()
    serve_http2(create_app(here), here, tls=True)
