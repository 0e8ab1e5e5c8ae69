"""``DELETE /conversations/{id}/contexts``: an operator has what agents keep of a conversation erased."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.admin.access import caller_of
from gateway.admin.operators import operators_only, refused, told
from gateway.admin.stream import json
from gateway.contexts import StoreError

if TYPE_CHECKING:
    from gateway.control.gateway import Gateway

PATH = "/conversations/{id:path}/contexts"


class ErasedContexts(msgspec.Struct, frozen=True):
    """The answer."""

    conversation: str
    erased: int
    """How many contexts."""


def context_routes(gateway: Gateway) -> list[Route]:
    """The endpoint of `gateway`."""

    async def erase(request: Request) -> Response:
        contexts, conversation = gateway.shared.contexts, request.path_params["id"]
        if contexts is None:
            return refused(404, "this gateway keeps no contexts")
        try:
            erased = await contexts.erase(conversation)
        except StoreError as error:
            return refused(503, f"the contexts may not all be erased: {error}", retry_after_s=1)
        told(caller_of(request.scope), f"erase the contexts of {conversation}", f"{erased} are gone")
        return json(ErasedContexts(conversation, erased))

    return [Route(PATH, operators_only(erase), methods=["DELETE"])]


def merged(answers: list[ErasedContexts]) -> ErasedContexts:
    """What several workers have erased of one store."""
    return ErasedContexts(answers[0].conversation, sum(each.erased for each in answers))
