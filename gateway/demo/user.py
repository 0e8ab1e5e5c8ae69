"""The person's side: an A2A client that asks the planner through the gateway, and hears it as it works."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from a2a.client import ClientConfig, create_client
from a2a.helpers import get_artifact_text, get_message_text, new_text_message
from a2a.types import Role, SendMessageRequest, TaskState
from a2a.utils.errors import A2AError

from gateway.demo.peer import Settings, gateway_client

CAPABILITY = "agent.plan"


class TaskFailedError(Exception):
    """The planner did not reach the goal; the message says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a goal."""

    code: str
    output: str
    verdict: str
    remarks: tuple[str, ...]
    tokens: int
    """How many pieces of code were heard while it was being written."""


async def ask(goal: str, packet: Mapping[str, str], settings: Settings, hear: Callable[[str], None]) -> Answer:
    """Send `goal` to whoever plans, as a streaming A2A message.

    Args:
        goal: what to reach, in words.
        packet: the header fields of of its conversation, task and trace, and of what it may spend.
        settings: who asks, and of which gateway.
        hear: told each status message as it arrives.

    Raises:
        TaskFailedError: the task failed, or the stream broke.

    """
    tokens = 0
    result: dict[str, Any] = {}
    last_words = "the stream ended early"
    state = TaskState.TASK_STATE_UNSPECIFIED
    request = SendMessageRequest(message=new_text_message(goal, role=Role.ROLE_USER))
    async with gateway_client(settings) as http:
        http.headers.update({"flight-capability": CAPABILITY, **packet})
        try:
            client = await create_client(settings.gateway, ClientConfig(httpx_client=http))
            async for response in client.send_message(request):
                if response.HasField("status_update"):
                    state = response.status_update.status.state
                    last_words = get_message_text(response.status_update.status.message)
                    hear(last_words)
                elif response.HasField("artifact_update"):
                    artifact = response.artifact_update.artifact
                    if artifact.name == "result":
                        result = json.loads(get_artifact_text(artifact))
                    else:
                        tokens += 1
        except A2AError as error:
            raise TaskFailedError(str(error)) from error
    if state != TaskState.TASK_STATE_COMPLETED:
        raise TaskFailedError(last_words)
    review = result["review"]
    return Answer(
        code=result["code"],
        output=result["output"],
        verdict=review["verdict"],
        remarks=tuple(review["remarks"]),
        tokens=tokens,
    )
