"""What operators do: reload, and drain, eject, retire or restore a member.

Each answers when it is in force, or when it is known why it is not.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.admin.access import caller_of
from gateway.admin.members import one
from gateway.admin.operators import operators_only, refused, told
from gateway.admin.stream import json
from gateway.admin.workers import OPERATOR
from gateway.membership.overrides import Override, OverrideError, is_as_far
from gateway.routing import AgentState

if TYPE_CHECKING:
    from gateway.control.gateway import Gateway

PATIENCE_S: Final = 30.0
"""How long an operation may take to be in force."""
STATES: Final = {"drain": AgentState.DRAINING, "eject": AgentState.EJECTED, "retire": AgentState.RETIRED}
RESTORE: Final = "restore"


def operation_routes(gateway: Gateway) -> list[Route]:
    """The endpoints of `gateway`."""

    async def reload(request: Request) -> Response:
        caller = caller_of(request.scope)
        try:
            problems = await asyncio.wait_for(gateway.insist(), PATIENCE_S)
        except TimeoutError:
            return refused(504, f"the files have not been read within {PATIENCE_S:g} s")
        revision = gateway.status.revision
        told(caller, "reload", f"refused: {'; '.join(problems)}" if problems else f"revision {revision} is in force")
        if problems:
            return JSONResponse({"problems": problems}, status_code=409)
        return JSONResponse({"revision": revision})

    async def operate(request: Request) -> Response:
        name, what = request.path_params["name"], request.path_params["operation"]
        if what not in STATES and what != RESTORE:
            return refused(404, f"expected one of {', '.join((*STATES, RESTORE))}")
        caller = caller_of(request.scope)
        who = request.headers.get(OPERATOR, caller.operator) if caller.trusted else caller.operator
        repeated = caller.trusted and "repeated" in request.query_params
        why_not = _put(gateway, name, what, who, repeated=repeated)
        if why_not is not None:
            told(caller, f"{what} {name}", "refused")
            return why_not
        try:
            await asyncio.wait_for(gateway.turned(), PATIENCE_S)
        except TimeoutError:
            return refused(504, f"members have not been brought up to date within {PATIENCE_S:g} s")
        member = one(gateway, name)
        told(caller, f"{what} {name}", f"it is {member.state}" if member is not None else "it is no member now")
        return json(member) if member is not None else JSONResponse({"name": name, "state": None})

    return [
        Route("/operations/reload", operators_only(reload), methods=["POST"]),
        Route("/operations/members/{name:path}/{operation}", operators_only(operate), methods=["POST"]),
    ]


def _put(gateway: Gateway, name: str, what: str, who: str, *, repeated: bool) -> Response | None:
    """Have it done; gives why it is not.  What is `repeated` may be for a member that is not known yet."""
    overrides = gateway.membership.overrides
    agent = gateway.snapshot.routes.members.get(name)
    if what == RESTORE:
        if overrides.take_back(name):
            return None
        if agent is None:
            return refused(404, f"no member is called {name}, and none of that name is overridden")
        observed = gateway.membership.health.why(name)
        because = observed or f"its source has it {agent.state.value}"
        return refused(409, f"no operator has changed {name}: {because}")
    if agent is None and not repeated:
        return refused(404, f"no member is called {name}")
    wanted = STATES[what]
    sourced = gateway.membership.sourced(name)
    if sourced is not None and is_as_far(sourced.state, wanted):
        return refused(409, f"its source has {name} {sourced.state.value} already")
    try:
        overrides.put(name, Override(wanted, who, datetime.now(UTC)))
    except OverrideError as error:
        return refused(409, str(error))
    return None
