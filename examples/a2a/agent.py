"""An A2A agent (a2a-sdk) behind the gateway: capability `agent.summary`, JSON-RPC at /a2a, its card at the usual place.

FLIGHT_LISTEN is its address, on loopback; FLIGHT_GATEWAY is what its card tells callers, for that is the only way in.
"""

import os

import uvicorn
from a2a.helpers import new_task_from_user_message, new_text_message, new_text_part
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, AgentSkill
from starlette.applications import Starlette

from gateway.agent import Arrival

GATEWAY = os.environ.get("FLIGHT_GATEWAY", "https://127.0.0.1:8443")

CARD = AgentCard(
    name="summarizer",
    description="Says the first words of a text",
    version="1.0.0",
    supported_interfaces=[AgentInterface(url=f"{GATEWAY}/a2a", protocol_binding="JSONRPC", protocol_version="1.0")],
    capabilities=AgentCapabilities(streaming=True),
    default_input_modes=["text/plain"],
    default_output_modes=["text/plain"],
    skills=[AgentSkill(id="agent.summary", name="summary", description="The first words of a text", tags=["text"])],
)


class Summarizer(AgentExecutor):
    """The agent's work on one task."""

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Tell the caller that it has begun, then the result."""
        task = context.current_task or new_task_from_user_message(context.message)
        await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        # The headers of the request are there: who asks, in which conversation, with how much time and budget left.
        # To hand a part on: await arrival.onward(client).post("text.count", json=..., budget={"tokens": 100})
        arrival = Arrival.received(context.call_context.state["headers"])
        await updater.start_work(new_text_message(f"asked by {arrival.sender}"))
        words = context.get_user_input().split()
        # The gateway finds in the metadata what was spent, and charges it to whoever asked.
        spent = {"usage": {"tokens": len(words)}}
        await updater.add_artifact([new_text_part(" ".join(words[:3]))], name="summary", metadata=spent)
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Nothing is kept of a task, so there is nothing to undo."""
        await TaskUpdater(event_queue, context.current_task.id, context.current_task.context_id).cancel()


def main() -> None:
    """Serve until told to stop."""
    handler = DefaultRequestHandler(Summarizer(), InMemoryTaskStore(), CARD)
    app = Starlette(routes=[*create_agent_card_routes(CARD), *create_jsonrpc_routes(handler, rpc_url="/a2a")])
    host, _, port = os.environ.get("FLIGHT_LISTEN", "127.0.0.1:7204").rpartition(":")
    uvicorn.run(app, host=host, port=int(port), log_level="warning", timeout_graceful_shutdown=1)


if __name__ == "__main__":
    main()
