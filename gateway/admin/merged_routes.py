"""What a supervisor's admin port tells and does with all of its workers at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import httpx
import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.admin import merging, revocations
from gateway.admin.access import caller_of
from gateway.admin.approvals import Approvals, read_said
from gateway.admin.contexts import PATH as CONTEXTS
from gateway.admin.contexts import ErasedContexts
from gateway.admin.contexts import merged as merged_erasures
from gateway.admin.conversations import MAX_SHOWN, Conversations, Forest
from gateway.admin.debug import GONE, asked_for, shown, unless_gone
from gateway.admin.filters import Filter
from gateway.admin.live import MAX_READERS
from gateway.admin.members import Circle, Member, Members
from gateway.admin.merged_live import MergedStream
from gateway.admin.operations import PATIENCE_S, RESTORE, STATES
from gateway.admin.operators import Endpoint, operators_only, refused, told
from gateway.admin.policies import Policies
from gateway.admin.profile import Samples, read_collapsed
from gateway.admin.stream import NO_STREAM, Handoffs, json, limit_of
from gateway.admin.tasks import Tasks
from gateway.admin.workers import ASK_TIMEOUT_S, WorkerReply, Workers, operation_path, order_headers

READING_S: Final = 30.0
"""How long a worker may read its flight recorder's files."""
MARGIN_S: Final = 5.0
"""How much longer than what it is to take a worker may take to answer."""

Answer = TypeVar("Answer")


def merged_routes(workers: Workers) -> list[Route]:
    """The endpoints over `workers`."""
    readers: set[MergedStream] = set()

    async def live(request: Request) -> Response:
        try:
            wanted = Filter.of(request.query_params)
        except ValueError as error:
            return refused(400, str(error))
        if request.method == "HEAD":
            return NO_STREAM
        if len(readers) >= MAX_READERS:
            return refused(503, f"{MAX_READERS} look on already", retry_after_s=5)
        stream = MergedStream(workers, _path(request), wanted, lambda: readers.discard(stream))
        readers.add(stream)
        return stream

    def merged(
        kind: type[Answer], merge: Callable[[Sequence[Answer]], object], timeout_s: float = ASK_TIMEOUT_S
    ) -> Endpoint:
        async def endpoint(request: Request) -> Response:
            return await _merged(await workers.ask(_path(request), timeout_s=timeout_s), kind, merge)

        return endpoint

    def limited(kind: type[Answer], merge: Callable[[Sequence[Answer], int], object]) -> Endpoint:
        async def endpoint(request: Request) -> Response:
            try:
                limit = limit_of(request)
            except ValueError as error:
                return refused(400, str(error))
            return await _merged(await workers.ask(_path(request)), kind, lambda answers: merge(answers, limit))

        return endpoint

    tasks = merged(Tasks, merging.tasks)
    forest = merged(Forest, lambda answers: merging.forests(answers, MAX_SHOWN), READING_S)

    async def reload(request: Request) -> Response:
        caller = caller_of(request.scope)
        replies = await workers.ask(_path(request), "POST", order_headers(caller.operator), PATIENCE_S + MARGIN_S)
        answer = _least_well(replies)
        told(caller, "reload", f"{answer.status_code} {_body(answer)}")
        return answer

    async def operate(request: Request) -> Response:
        caller = caller_of(request.scope)
        name, what = request.path_params["name"], request.path_params["operation"]
        path, headers = operation_path(name, what), order_headers(caller.operator)
        replies = await workers.ask(path, "POST", headers, PATIENCE_S + MARGIN_S)
        done = [each.answer for each in replies if each.answer is not None and each.answer.is_success]
        if what == RESTORE:
            workers.orders.take_back(name)
        elif done and what in STATES:
            workers.orders.put(name, what, caller.operator)
        answer = _least_well(replies)
        told(caller, f"{what} {name}", f"{answer.status_code} {_body(answer)}" if not done else "done")
        if answer.status_code != 200:
            return answer
        members = [each.json() for each in done]
        there = [msgspec.convert(each, Member) for each in members if each["state"] is not None]
        return json(merging.member(there)) if there else answer

    async def erase_contexts(request: Request) -> Response:
        caller = caller_of(request.scope)
        replies = await workers.ask(_path(request), "DELETE", order_headers(caller.operator), PATIENCE_S)
        answer = _least_well(replies)
        conversation = request.path_params["id"]
        told(caller, f"erase the contexts of {conversation}", f"{answer.status_code} {_body(answer)}")
        if answer.status_code != 200:
            return answer
        done = [each.answer.content for each in replies if each.answer is not None]
        return json(merged_erasures([msgspec.json.decode(each, type=ErasedContexts) for each in done]))

    async def approve(request: Request) -> Response:
        said = await read_said(request)
        if isinstance(said, Response):
            return said
        caller = caller_of(request.scope)
        body = msgspec.json.encode(said)
        replies = await workers.ask(_path(request), "POST", order_headers(caller.operator), content=body)
        # It waits in one of them: the others know nothing of it.
        answers = [each.answer for each in replies if each.answer is not None]
        known = [each for each in answers if each.status_code != 404]
        if not known and len(answers) < len(replies):
            return _no_answer("not all workers answer, and it does not wait in the others")
        found = _passed_on(min(known or answers, key=_status))
        told(caller, f"{said.decision.value} {request.path_params['id']}", f"{found.status_code} {_body(found)}")
        return found

    async def revoke(request: Request) -> Response:
        caller = caller_of(request.scope)
        what = f"{request.method} {request.query_params.get('kind')} {request.query_params.get('value')}"
        replies = await workers.ask(_path(request), request.method, order_headers(caller.operator), MARGIN_S)
        answer = _least_well(replies)
        told(caller, f"revocation: {what}", answer.status_code)
        return answer

    async def profile(request: Request) -> Response:
        try:
            seconds, hz, form = asked_for(request)
        except ValueError as error:
            return refused(400, str(error))
        path = f"{request.url.path}?seconds={seconds:g}&hz={hz:g}"
        replies = await unless_gone(request, workers.ask(path, timeout_s=seconds + MARGIN_S))
        if replies is None:
            return refused(499, GONE)
        samples: Samples = {}
        for each in replies:
            if each.answer is not None and each.answer.is_success:
                samples.update(read_collapsed(each.answer.text, f"worker {each.number}"))
        return shown(samples, hz, form) if samples else _least_well(replies)

    return [
        Route("/live", live),
        Route("/handoffs", limited(Handoffs, merging.handoffs)),
        Route("/conversations", limited(Conversations, merging.conversations)),
        Route("/conversations/{id:path}", forest),
        Route(CONTEXTS, operators_only(erase_contexts), methods=["DELETE"]),
        Route("/tasks/{id:path}", forest),
        Route("/approvals", merged(Approvals, merging.approvals)),
        Route("/approvals/{id}", operators_only(approve), methods=["POST"]),
        Route("/members", merged(Members, merging.members)),
        Route("/ring", merged(Circle, merging.circles)),
        Route("/policies", merged(Policies, merging.policies)),
        Route("/operations/reload", operators_only(reload), methods=["POST"]),
        Route("/operations/members/{name:path}/{operation}", operators_only(operate), methods=["POST"]),
        Route("/revocations", merged(revocations.Told, revocations.merged)),
        Route("/revocations", operators_only(revoke), methods=["POST", "DELETE"]),
        Route("/debug/tasks", operators_only(tasks)),
        Route("/debug/profile", operators_only(profile)),
    ]


def _path(request: Request) -> str:
    """What is asked, as it came: a name in it may have any characters."""
    raw = request.scope.get("raw_path") or request.url.path.encode()
    query = request.url.query
    return bytes(raw).partition(b"?")[0].decode("latin-1") + (f"?{query}" if query else "")


async def _merged(
    replies: Sequence[WorkerReply], kind: type[Answer], merge: Callable[[Sequence[Answer]], object]
) -> Response:
    """The answers that are well as one; if none is, the one of them that is least ill."""
    answers = [each.answer for each in replies if each.answer is not None]
    well = [each.content for each in answers if each.is_success]
    if not well:
        return _passed_on(min(answers, key=_status)) if answers else _no_answer("no worker answers")

    def read() -> Response:
        return json(merge([msgspec.json.decode(each, type=kind) for each in well]))

    return await asyncio.to_thread(read)


def _least_well(replies: Sequence[WorkerReply]) -> Response:
    """Of what was to be done by all: the answer of the one that did it least."""
    silent = next((each.number for each in replies if each.answer is None), None)
    if silent is not None:
        return _no_answer(f"worker {silent} does not answer; the others have been told")
    return _passed_on(max((each.answer for each in replies if each.answer is not None), key=_status))


def _status(answer: httpx.Response) -> int:
    return answer.status_code


def _no_answer(why: str) -> Response:
    return refused(503, why, retry_after_s=1)


def _passed_on(answer: httpx.Response) -> Response:
    return Response(answer.content, answer.status_code, media_type=answer.headers.get("content-type"))


def _body(answer: Response) -> str:
    return bytes(answer.body).decode()
