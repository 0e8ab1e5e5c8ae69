"""One request's way through the gateway: decide, send on, relay both ways, record.

A state machine driven by the events of its two connections; no task and no timer of its own unless the packet
carries a deadline.  Whatever happens, it ends once, with one `Handoff`.
"""

from __future__ import annotations

import logging
import sys
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING

from gateway.approvals import Answered
from gateway.authority import Terms
from gateway.decision import Forward, Refuse, Route, Snapshot, decide, judge, uuid7
from gateway.handoff import Outcome
from gateway.headers import field_value
from gateway.ledger import StoredAnswer
from gateway.membership.health import FAILURE_STATUSES
from gateway.messages import Fields, RequestHead, ResponseHead
from gateway.packet import fields as names
from gateway.packet.digest import digest_check
from gateway.policy import Ask
from gateway.policy.brokering import Brokered, without
from gateway.proxy.absent import AbsentCaller
from gateway.proxy.body import GuardedBody
from gateway.proxy.clocks import Phase, Watch
from gateway.proxy.endings import KEEP_ALIVE, at_line_start, is_event_stream, last_words
from gateway.proxy.once import OncePacket
from gateway.proxy.retries import RETRIED_STATUSES, UNTAKEN, Cause, Failure, repeatable, retry_after_s
from gateway.proxy.retry import Leftover, Retry
from gateway.proxy.upload import Upload
from gateway.refusal import GRPC_CONTENT_TYPE, Reason, Refusal, answer
from gateway.routing import Agent, AgentState
from gateway.telemetry.tracing import renew
from gateway.verdict import Decided

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Collection

    from gateway.proxy.budgets import Meter
    from gateway.proxy.downstream import DownstreamConnection
    from gateway.proxy.plane import DataPlane
    from gateway.proxy.upstream import Pool, UpstreamConnection
    from gateway.telemetry.trace import Trace

log = logging.getLogger(__name__)

_TAKEN_BACK = frozenset(
    {
        Reason.DENIED_BY_POLICY,
        Reason.NO_POLICY_ALLOWS,
        Reason.SIGNATURE_INVALID,
        Reason.CREDENTIAL_INSUFFICIENT,
    }
)
"""What policy says of a packet that it no longer allows at any agent."""
_MAX_DIGITS = 19
"""A length of more is beyond every bound, and costs time to read."""
_STAMPED = names.GATEWAY_ONLY_RESPONSE
_NOT_RECORDED = Refusal(Reason.NOT_RECORDED, "policy wants this recorded, and that cannot be now", retry_after_s=1)


def _length(head: RequestHead) -> int | None:
    """What the head says of its body's length (RFC 9110 section 8.6); the codec has seen to it that it is digits."""
    length = field_value(head.fields, b"content-length")
    if not length:
        return None
    return int(length) if len(length) < _MAX_DIGITS else sys.maxsize


def _too_large(most: int) -> Refusal:
    return Refusal(Reason.BODY_TOO_LARGE, f"a body may have at most {most} bytes here")


class Exchange:
    """A request, its decision, and its relay."""

    __slots__ = (
        "_credential_id",
        "_deadline",
        "_injected",
        "_lease",
        "_loaded",
        "_once",
        "_owed_up",
        "_placing",
        "_pool",
        "_queued",
        "_retry",
        "_stage",
        "_tail",
        "_up",
        "_up_stream",
        "_upload",
        "_watch",
        "agent",
        "answered_at",
        "approvals",
        "asked_at",
        "attempts",
        "brokered",
        "bytes_in",
        "bytes_out",
        "decided",
        "decision",
        "downstream",
        "failures",
        "finished",
        "forward",
        "given",
        "head",
        "meter",
        "plane",
        "refuse",
        "repeated",
        "responded",
        "response",
        "route",
        "sent_at",
        "snapshot",
        "started",
        "started_at",
        "status",
        "stream",
        "terms",
        "trace",
        "trailers",
        "tunnel",
        "waited_s",
        "waiting",
    )

    def __init__(self, plane: DataPlane, downstream: DownstreamConnection, stream: int) -> None:
        self.plane = plane
        self.downstream: DownstreamConnection | AbsentCaller = downstream
        self.stream = stream
        self.finished = False
        self.responded = False
        """A final response head has gone to the caller."""
        self.status = 0
        self.attempts = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.tunnel = False
        self.repeated = False
        """Its answer is that of the first time."""
        self.forward: Forward | None = None
        self.refuse: Refuse | None = None
        self.agent: Agent | None = None
        self.trace: Trace | None = None
        self._credential_id = ""
        self.terms: Terms | None = None
        """What its agent was told of the work, and was given to do with it."""
        self.given = ""
        """The id of the credential that its agent was given."""
        self.waited_s = 0.0
        """At the door."""
        self.decided = 0.0
        """When, by `perf_counter`; so are those of the last attempt: when a connection was asked for, the request's
        head was on its way, and the head of its final answer was there."""
        self.asked_at = self.sent_at = self.answered_at = 0.0
        self.failures: tuple[Failure, ...] = ()
        self._pool: Pool | None = None
        self._up: UpstreamConnection | None = None
        self._up_stream = 0
        self._retry: Retry | None = None
        """Once an agent has failed this packet."""
        self._loaded: Agent | None = None
        """The agent whose load counts this packet."""
        self._queued = False
        """It waits for a connection."""
        self.brokered: Brokered | None = None
        """What becomes of its header at the agent, where a document speaks of it."""
        self._injected: Fields = []
        """What the agent is given with it."""
        self._lease = b""
        """Of the conversation that the packet belongs to."""
        self.approvals: tuple[Answered, ...] = ()
        """What came of those that rules asked for."""
        self.waiting = False
        """For somebody who is to approve it: its clocks stand still."""
        self._stage = 0
        """How many stages it has entered."""
        self._placing = False
        """It is being found out which agent it goes to."""
        self._once: OncePacket | None = None
        """It is done once."""
        self.meter: Meter | None = None
        """Where something of the caller's budget was reserved for it: reads along its answer what is spent."""
        self._upload = Upload(downstream, stream)
        self.response: ResponseHead | None = None
        """As the caller got it; so are `trailers`."""
        self.trailers: Fields | None = None
        self._tail = b""
        """The last bytes that the caller got."""
        self._owed_up = 0
        """Response data that the caller's side has not taken."""
        self._deadline: asyncio.TimerHandle | None = None
        self._watch: Watch | None = None
        """Its clocks, once it is open for a moment."""

    # -- from the caller --------------------------------------------------------------------------------

    def begin(self, head: RequestHead, *, ended: bool) -> None:
        """Decide, and start on the way to an agent."""
        plane = self.plane
        self.started = perf_counter()
        self.started_at = now = plane.clock()
        self.head = head
        self.tunnel = bool(head.protocol)
        self.snapshot: Snapshot = plane.snapshot
        caller = self.downstream
        try:
            verdict = decide(head, caller.principal, self.snapshot, now, plane.entropy, destination=caller.destination)
        except Exception:
            # Failing is closed: a defect in the decision is a refusal, counted, never a forward.
            plane.telemetry.defect()
            log.exception("a decision failed")
            verdict = Refuse(Refusal(Reason.INTERNAL, "the decision failed; see the gateway's log"), None, b"", b"")
        self.decision = Decided(head, caller.principal, verdict, self.snapshot.revision, now, caller.destination)
        self.trace = plane.telemetry.begin_trace(self.decision)
        if isinstance(verdict, Refuse):
            self.refuse = verdict
            plane.minting.refused(verdict.refusal)
            self._refuse(verdict.refusal)
            return
        self.forward = verdict
        self.route: Route = verdict.route
        verdict.fields.append((names.TRACEPARENT, self.trace.header))
        timeout_ms = verdict.packet.timeout_ms
        if timeout_ms:
            seconds = min(timeout_ms / 1000, plane.max_timeout_s)
            self._deadline = plane.loop.call_later(seconds, self._on_deadline)
        self.decided = perf_counter()
        if plane.once is not None and not self._admit_once():
            return
        once = self._once
        if (verdict.content_digest or verdict.structured or once is not None) and not self.tunnel:
            digest = digest_check(verdict.content_digest) if verdict.content_digest else None
            hold = once.take if once is not None else None
            self._upload.guard(GuardedBody(digest, structured=verdict.structured, hold=hold))
        if ended:
            self.on_request_end(None)
        elif not self.tunnel:
            length = _length(head)
            if length == 0:
                # To an agent over HTTP/1.1 such a head is a whole message: there is no last piece to hold back.
                self._body_came(self._upload.clear())
            elif length is not None and length > plane.max_body_bytes:
                self._refuse(_too_large(plane.max_body_bytes))
        if not (self.finished or ((verdict.structured or once is not None) and not self.tunnel)):
            self._enter()

    def _admit_once(self) -> bool:
        """Find out whether the packet is one that is done once; ``False`` when it is, and cannot be."""
        once, forward, downstream = self.plane.once, self.forward, self.downstream
        assert once is not None
        assert forward is not None
        assert downstream.principal is not None
        admitted = once.admit(self.head, forward, downstream.principal)
        if isinstance(admitted, Refusal):
            self._refuse(admitted)
            return False
        self._once = admitted
        if admitted is not None and (field_value(self.head.fields, b"expect") or b"").lower() == b"100-continue":
            # No agent is asked before the body is here, so none can ask for it (RFC 9110 section 10.1.1).
            forward.fields[:] = [item for item in forward.fields if item[0] != b"expect"]
            downstream.send_response(self.stream, ResponseHead(100, []), ended=False)
        return True

    def on_request_data(self, data: bytes, size: int) -> None:
        """A piece of the caller's body."""
        self.bytes_in += len(data)
        most = self.plane.max_body_bytes
        refusal = self._upload.take(data, size) if self.bytes_in <= most or self.tunnel else _too_large(most)
        if refusal is not None:
            self._break_off(refusal)

    def on_request_end(self, trailers: Fields | None) -> None:
        """The caller's message is whole."""
        brokering, forward = self.plane.snapshot.brokering, self.forward
        if trailers is not None and forward is not None and not brokering.silent:
            trailers = without(brokering.strip(forward.packet.capabilities), trailers) or None
        self._body_came(self._upload.end(trailers))

    def _body_came(self, found: Refusal | bytes | None) -> None:
        """All of the body is there: it is right, or refused, or an agent is to be found for it only now."""
        forward = self.forward
        assert forward is not None
        if isinstance(found, Refusal):
            self._break_off(found)
        elif found is not None and forward.structured:
            self._compare(found)
        elif found is not None:
            self._upload.put(found)
            self._enter()

    def on_caller_gone(self) -> None:
        """The caller broke off: so does everything done for it, but what is done once and has begun."""
        if self.finished or isinstance(self.downstream, AbsentCaller):
            return
        if self._once is None or not self._once.worth_going_on or not self.plane.leave_alone(self):
            self._finish(Outcome.CANCELLED)
            return
        gone, self.downstream = self.downstream, AbsentCaller(self.downstream)
        self._upload.go_on_without(self.downstream)
        gone.release(self.stream)
        self.downstream_writable()
        self._upload.writable()

    def downstream_writable(self) -> None:
        """The caller's side takes data again."""
        up = self._up
        if up is not None and not self.finished and self._owed_up and not self.downstream.congested:
            owed, self._owed_up = self._owed_up, 0
            up.consumed(self._up_stream, owed)
            up.resume()

    def judge_again(self, snapshot: Snapshot, now: float) -> None:
        """End the exchange when `snapshot` no longer allows what is under way."""
        forward, principal = self.forward, self.downstream.principal
        if self.finished or forward is None or principal is None or snapshot is self.snapshot:
            return
        if snapshot.revocations.entries:
            keyid = forward.signature.keyid if forward.signature is not None else ""
            stopped = snapshot.revocations.refusal_of(
                principal, now, forward.packet, forward.held, given=self.given, keyid=keyid
            )
            if stopped is not None:
                self.snapshot = snapshot
                self.revoke(stopped)
                return
        agent = self.agent or forward.agent
        judgement = judge(forward.packet, self.head, principal, forward.evidence, snapshot, now, forward.held)
        if agent.name in judgement.grants:
            return
        refusal = judgement.route
        if not isinstance(refusal, Refusal) or refusal.reason not in _TAKEN_BACK:
            # An agent that is no member any more may finish what it has begun; that is no question of policy.
            if agent.name not in snapshot.routes.members:
                return
            detail = f"no policy allows {self._capability} at {agent.name} any more"
            refusal = Refusal(Reason.NO_POLICY_ALLOWS, detail)
        self.snapshot = snapshot
        self.revoke(refusal)

    def revoke(self, refusal: Refusal) -> None:
        """The permission is gone: break off what is under way."""
        if not self.finished:
            self._break_off(refusal, Outcome.REVOKED)

    def cut_off(self, refusal: Refusal) -> None:
        """There is no more time."""
        if not self.finished:
            self._break_off(refusal)

    # -- on the way to the agent ------------------------------------------------------------------------

    def _compare(self, envelope: bytes) -> None:
        """Have the gate hold the envelope against the head."""
        principal = self.downstream.principal
        assert principal is not None

        def compared(refusal: Refusal | None) -> None:
            if self.finished:
                return
            if refusal is not None:
                self._refuse(refusal)
                return
            self._upload.put(envelope)
            self._enter()

        held = self.forward.held if self.forward is not None else None
        lineage = held.lineage if held is not None else ()
        self.plane.gate.compare(self.head, envelope, principal, lineage, compared)

    def _enter(self) -> None:
        """Find the agent."""
        forward = self.forward
        assert forward is not None
        placement = self.plane.placement
        if forward.packet.alone:
            self._placed(placement.pick(forward))
        else:
            self._lease = placement.lease_key(forward.packet)
            self._placing = True
            placement.place(forward, self._lease, self.started_at, self._placed)

    def _placed(self, agent: Agent | None) -> None:
        """This agent it is, if the gate lets the packet through."""
        self._placing = False
        if self.finished:
            self._let_go()
            return
        forward, principal = self.forward, self.downstream.principal
        assert forward is not None
        assert principal is not None
        if agent is None:
            assert self.route.full is not None
            self._refuse(self.route.full)
            return
        self.agent = agent
        granted = self.route.grants[agent.name]
        if granted.audited and self.plane.unrecorded:
            self._refuse(_NOT_RECORDED)
        elif granted.limits or forward.signature is not None:
            self.plane.gate.enter(forward, granted.limits, principal, self.started_at, self._entered)
        elif self._once is not None or self._staged(agent):
            self._entered(None)
        else:
            self._acquire(agent)

    def _entered(self, refusal: Refusal | None) -> None:
        """The gate, or a stage, has let the packet through, or not: on to the next stage, the ledger, the agent."""
        if self.finished:
            return
        stages, agent = self.plane.stages, self.agent
        assert agent is not None
        if refusal is not None:
            self._refuse(refusal)
        elif self._stage < len(stages) and self._staged(agent):
            self._stage += 1
            stages[self._stage - 1].enter(self, self._entered)
        elif self._once is not None:
            self._once.begin(self.plane.clock(), self._begun)
        else:
            self._acquire(agent)

    def _staged(self, agent: Agent) -> bool:
        """Whether the packet passes the stages on its way to `agent`."""
        forward = self.forward
        assert forward is not None
        return self.route.grants[agent.name].staged or forward.held is not None or bool(forward.packet.context)

    def approved(self, ask: Ask) -> bool:
        """Whether somebody has approved it."""
        return any(each.given and each.rule == ask.name for each in self.approvals)

    def come_back(self, answer: Callable[[Refusal | None], None]) -> None:
        """It has waited: see whether it still may go on, and its agent is still there, or which other one is."""
        plane, forward, agent = self.plane, self.forward, self.agent
        assert forward is not None
        assert agent is not None
        if plane.snapshot is self.snapshot:
            answer(None)
            return
        route = self._route_now()
        if isinstance(route, Refusal):
            answer(route)
            return
        self.route, self.snapshot = route, plane.snapshot
        name = agent.name
        state = route.members[name].state if name in route.grants else AgentState.RETIRED
        if state is AgentState.READY or (state is AgentState.DRAINING and self._lease):
            self.agent = route.members[name]
            answer(None)
            return
        self._placing = True

        def placed(agent: Agent | None) -> None:
            self._placing = False
            if self.finished:
                self._let_go()
            elif agent is None:
                answer(self._unreachable)
            else:
                self.agent = agent
                answer(None)

        plane.placement.another(route, forward.packet, self._lease, (name,), plane.clock(), placed)

    def _unapproved(self, route: Route) -> list[str]:
        """Agents of `route` that somebody would have to approve first."""
        return [
            name
            for name, granted in route.grants.items()
            if granted.approvals and not all(self.approved(ask) for ask in granted.approvals)
        ]

    def _begun(self, found: StoredAnswer | Refusal | None) -> None:
        """The ledger has said whether the packet begins, or how it ended the first time."""
        if isinstance(found, Refusal):
            self._refuse(found)
        elif found is not None:
            self._repeat(found)
        else:
            assert self.agent is not None
            self._acquire(self.agent)

    def _acquire(self, agent: Agent) -> None:
        """Have it sent to `agent`, once there is what that is to be given with it."""
        self.agent = agent
        plane, forward = self.plane, self.forward
        assert forward is not None
        brokering = plane.snapshot.brokering
        brokered = self.brokered = None if brokering.silent else brokering.of(forward.packet.capabilities, agent)
        if brokered is None or not brokered.injections:
            self._injected = []
            self._send_to(agent)
        elif agent.spiffe_id is None:
            self._break_off(plane.injections.broker.unidentified(brokered))
        else:
            plane.injections.ask(brokered, self._supplied)

    def _supplied(self, found: Fields | Refusal) -> None:
        """There is what the agent is to be given, or there is not."""
        if self.finished:
            return
        if isinstance(found, Refusal):
            self._break_off(found)
            return
        assert self.agent is not None
        self._injected = found
        self._send_to(self.agent)

    def _send_to(self, agent: Agent) -> None:
        plane, capability = self.plane, self._capability
        if not plane.caps.begin(capability):
            self._overloaded(f"too many packets for {capability} are under way")
            return
        self._loaded = agent
        self.route.load.begin(agent.name)
        self.attempts += 1
        self.asked_at = perf_counter()
        self.sent_at = 0.0
        self._pool = plane.pool(agent)
        why = self._pool.acquire(self)
        if not why and self._up is None and not self.finished:
            self._queued = plane.caps.wait(capability)
            if not self._queued:
                why = f"too many packets for {capability} wait for a connection"
        if why:
            self._overloaded(why)

    @property
    def credential_id(self) -> str:
        """What its receiver's credential, and the account that it spends from, are known by."""
        if not self._credential_id:
            self._credential_id = uuid7(self.plane.clock(), self.plane.entropy)
        return self._credential_id

    @property
    def caller(self) -> str:
        """For whom."""
        principal = self.downstream.principal
        return principal.id if principal is not None else ""

    def on_turned_away(self, why: str) -> None:
        """It waited for a connection, and lost its place to others."""
        self._overloaded(why)

    def _overloaded(self, why: str) -> None:
        self._refuse(Refusal(Reason.OVERLOADED, why, retry_after_s=1))

    def _observed(self, *, ok: bool) -> None:
        """Tell how the agent did."""
        assert self.agent is not None
        self.plane.health.observed(self.agent.name, ok=ok, latency_s=perf_counter() - self.asked_at)

    def on_upstream(self, connection: UpstreamConnection) -> None:
        """A connection to the agent has room: send what there is."""
        forward = self.forward
        assert forward is not None
        self._unqueue()
        head = self.head
        fields = forward.fields
        brokered = self.brokered
        if brokered is not None:
            assert self.agent is not None
            broker = self.plane.injections.broker
            if brokered.injections and (connection.peer is None or connection.peer.id != self.agent.spiffe_id):
                connection.pool.on_room(connection)
                self._break_off(broker.unidentified(brokered))
                return
            fields = [*without(brokered.strip, fields), *self._injected]
            broker.injected(brokered)
        self._up = connection
        packet = forward.packet
        if packet.timeout_ms:
            # Each hop passes on what remains (and no more than the cap).
            left = min(packet.timeout_ms, int(self.plane.max_timeout_s * 1000))
            left = max(1, left - int((perf_counter() - self.started) * 1000))
            fields = [item for item in fields if item[0] != names.TIMEOUT]
            fields.append((names.TIMEOUT, b"%d" % left))
        agent = self.agent
        assert agent is not None
        if forward.held is not None or self.route.grants[agent.name].grants:
            fields = self.plane.minting.handed_on(self, connection.peer, fields)
        onward = RequestHead(head.method, connection.pool.scheme, head.authority, head.path, fields, head.protocol)
        upload = self._upload
        head_only = upload.at_once and not self.tunnel
        if self._once is not None:
            self._once.sent()
        self.sent_at = perf_counter()
        self._up_stream = connection.open(self, onward, ended=head_only)
        upload.start(connection, self._up_stream, head_only=head_only)

    def on_agent_gone(self) -> None:
        """The agent left before a connection to it was there: it was not asked at all."""
        assert self.agent is not None
        self.attempts -= 1
        self._failed(Cause.UNREACHABLE)
        self._unload()
        self._upload.rewind()
        retry = self._retry = self._retry or self._new_retry()
        retry.tried.append(self.agent.name)
        self._move(retry.tried, self._unreachable)

    def on_connect_failed(self, why: str) -> None:
        """No connection to the agent could be had: try the next one on the ring."""
        log.warning("agent %s: %s", self.agent.name if self.agent else "", why)
        self._observed(ok=False)
        self._ask_another(Cause.UNREACHABLE, self._unreachable)

    def on_upstream_lost(self, *, untouched: bool, malformed: str) -> None:
        """The agent's side broke off; `untouched` when it certainly did nothing with the request."""
        self._up = None
        if self.finished:
            return
        if not untouched:
            self._observed(ok=False)
        elif self._once is not None:
            self._once.untouched()
        if malformed:
            self._break_off(Refusal(Reason.UPSTREAM_MALFORMED, f"the agent's answer is not HTTP: {malformed}"))
        elif untouched:
            detail = f"the agent for {self._capability} took no request"
            self._ask_another(Cause.UNTOUCHED, Refusal(Reason.UPSTREAM_RESET, detail))
        else:
            detail = "the agent broke off before its answer was whole"
            self._ask_another(Cause.BROKEN_OFF, Refusal(Reason.UPSTREAM_RESET, detail))

    def _ask_another(self, cause: Cause, otherwise: Refusal) -> None:
        """The agent has the packet no more: have another do it, if that is safe."""
        if not self._retries(cause, otherwise):
            self._break_off(otherwise)

    def _retries(self, cause: Cause, otherwise: Refusal) -> bool:
        """Whether another agent will be asked, by `_go_on`, or else the caller told `otherwise`."""
        forward, agent, deadline = self.forward, self.agent, self._deadline
        assert forward is not None
        assert agent is not None
        retry = self._retry = self._retry or self._new_retry()
        safe = cause in UNTAKEN or (self._once is None and repeatable(self.head))
        goes_on = retry.ask(
            cause,
            otherwise,
            safe=safe and self._upload.repeatable and not self.responded,
            failed=agent.name,
            attempts=self.attempts,
            deadline=inf if deadline is None else deadline.when(),
            packet=forward.packet,
            route=self._route_now(),
        )
        if goes_on:
            self._failed(cause)
            self._unload()
            self._upload.rewind()
        return goes_on

    def _failed(self, cause: Cause) -> None:
        assert self.agent is not None
        self.failures += (Failure(self.agent.name, cause, self.asked_at, self.sent_at, perf_counter()),)
        assert self.forward is not None
        assert self.trace is not None
        renew(self.trace, self.forward.fields, len(self.failures) + 1)

    def _new_retry(self) -> Retry:
        return Retry(self.plane, self._go_on, self._break_off)

    def _route_now(self) -> Route | Refusal:
        """The way to those agents that the snapshot in force gives."""
        plane, forward, principal = self.plane, self.forward, self.downstream.principal
        assert forward is not None
        assert principal is not None
        if plane.snapshot is self.snapshot:
            return self.route
        now = plane.clock()
        return judge(forward.packet, self.head, principal, forward.evidence, plane.snapshot, now, forward.held).route

    def _go_on(self) -> None:
        """It is time for the next agent."""
        retry = self._retry
        assert retry is not None
        assert retry.otherwise is not None
        self._move(retry.passed_over(), retry.otherwise)

    def _move(self, passed_over: Collection[str], otherwise: Refusal) -> None:
        """Send the packet to an agent not named in `passed_over`; the caller is told `otherwise` if none is left."""
        plane, forward, route = self.plane, self.forward, self._route_now()
        assert forward is not None
        if isinstance(route, Refusal):
            self._break_off(otherwise)
            return
        self.route, self.snapshot = route, plane.snapshot
        self._placing = True

        def placed(agent: Agent | None) -> None:
            self._placing = False
            if self.finished:
                self._let_go()
            elif agent is None:
                self._break_off(otherwise)
            elif plane.unrecorded and route.grants[agent.name].audited:
                self._break_off(_NOT_RECORDED)
            elif plane.contexts is not None and (forward.packet.context or route.grants[agent.name].context):
                plane.contexts.hand_to(agent, self, handed(agent))
            else:
                self._acquire(agent)

        def handed(agent: Agent) -> Callable[[Refusal | None], None]:
            """The agent may have the packet's context, or not."""

            def told(refusal: Refusal | None) -> None:
                if self.finished:
                    return
                if refusal is not None:
                    self._break_off(refusal)
                else:
                    self._acquire(agent)

            return told

        # Another agent may be one that policy asks about.
        passed_over = [*passed_over, *self._unapproved(route)]
        plane.placement.another(route, forward.packet, self._lease, passed_over, plane.clock(), placed)

    @property
    def _unreachable(self) -> Refusal:
        detail = f"no agent for {self._capability} could be reached; try again later"
        return Refusal(Reason.NO_ELIGIBLE_AGENT, detail, retry_after_s=1)

    def _unload(self) -> None:
        """The agent has this packet no more."""
        agent, self._loaded = self._loaded, None
        if agent is not None:
            self.route.load.end(agent.name)
            self.plane.caps.end(self._capability)
            self._unqueue()

    def _unqueue(self) -> None:
        """It waits for a connection no longer."""
        if self._queued:
            self._queued = False
            self.plane.caps.go_on(self._capability)

    def _let_go(self) -> None:
        """The conversation's lease needs to be held for this packet no longer."""
        key, self._lease = self._lease, b""
        if key:
            self.plane.placement.release(key, self.plane.clock())

    def upstream_writable(self) -> None:
        """The agent's side takes data again."""
        if not self.finished:
            self._upload.writable()

    # -- from the agent ---------------------------------------------------------------------------------

    def on_response(self, head: ResponseHead, *, ended: bool) -> None:
        """A response head, interim or final."""
        forward = self.forward
        assert forward is not None
        assert self.agent is not None
        fields = [item for item in head.fields if item[0] not in _STAMPED]
        if head.status < 200:
            self.downstream.send_response(self.stream, ResponseHead(head.status, fields), ended=False)
            return
        self._observed(ok=head.status not in FAILURE_STATUSES)
        if head.status in RETRIED_STATUSES and self._asks_for_better(head, ended=ended):
            return
        self.status = head.status
        self.answered_at = perf_counter()
        self.responded = True
        self._upload.keep_no_more()
        if self._retry is not None:
            self._retry.end()
        fields += (
            (names.ID, names.sf_string(forward.packet.id)),
            (names.AGENT, names.sf_string(self.agent.name)),
            (names.DECISION, self.route.grants[self.agent.name].decision_value),
        )
        if self.attempts > 1:
            fields.append((names.ATTEMPTS, b"%d" % self.attempts))
        self.response = ResponseHead(head.status, fields)
        if self._once is not None:
            self._once.on_response(head.status, fields, ended=ended)
        self.downstream.send_response(self.stream, self.response, ended=ended)
        meter = self.meter
        overspent = meter.on_response(self.response) if meter is not None else None
        if ended:
            self._finish(Outcome.COMPLETED)
        elif overspent is not None:
            self._break_off(overspent)

    def _asks_for_better(self, head: ResponseHead, *, ended: bool) -> bool:
        """Whether another agent is asked for a better answer than the one that begins with `head`."""
        plane, agent, up = self.plane, self.agent, self._up
        assert agent is not None
        assert up is not None
        after = field_value(head.fields, names.RETRY_AFTER)
        after_s = retry_after_s(after, plane.clock()) if after is not None else None
        if after_s is not None:
            plane.retries.benches.bench(agent.name, after_s, plane.loop.time())
        whole = self._upload.sent
        if not self._retries(Cause.ANSWERED, self._unreachable):
            return False
        self._up = None
        if ended or not whole:
            up.release(self._up_stream, cancel=not whole)
        else:
            Leftover(up, self._up_stream)
        return True

    def on_response_data(self, data: bytes, size: int) -> None:
        """A piece of the agent's body."""
        up = self._up
        assert up is not None
        self.bytes_out += len(data)
        self._tail = data[-1:]
        if self._once is not None:
            self._once.on_response_data(data)
        taken = self.downstream.send_data(self.stream, data)
        if not taken:
            up.pause()
        if taken and not self._owed_up:
            up.consumed(self._up_stream, size)
        else:
            self._owed_up += size
        if self.meter is not None:
            overspent = self.meter.on_response_data(data)
            if overspent is not None and not self.finished:
                self._break_off(overspent)

    def on_response_end(self, trailers: Fields | None) -> None:
        """The agent's message is whole."""
        if self._once is not None:
            self._once.on_response_end(trailers)
        self.trailers = trailers
        self.downstream.end(self.stream, trailers)
        if self.meter is not None:
            self.meter.on_response_end(trailers)
        self._finish(Outcome.COMPLETED)

    def _repeat(self, found: StoredAnswer) -> None:
        """Answer as the first time."""
        self.agent = None
        self.repeated = self.responded = True
        self.status, self.bytes_out = found.status, len(found.body)
        head = ResponseHead(found.status, [*found.fields, (names.REPEATED, b"?1")])
        empty = not found.body and found.trailers is None
        self.downstream.send_response(self.stream, head, ended=empty)
        if found.body:
            self.downstream.send_data(self.stream, found.body)
        if not empty:
            self.downstream.end(self.stream, found.trailers)
        self._finish(Outcome.COMPLETED)

    # -- clocks -----------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Look at the clocks: what does not move ends; `now` is the loop's time, about once a second."""
        if self.finished:
            return
        if self.waiting:
            self._watch = None
            return
        watch = self._watch
        if watch is None:
            watch = self._watch = Watch(self.plane.clocks, now, self.bytes_in)
        refusal = watch.look(now, self._phase, self.bytes_in, self.bytes_out + self.responded)
        if refusal is not None:
            self._break_off(refusal)
        elif watch.speak(now):
            self._show_life()

    @property
    def _phase(self) -> Phase:
        if self.responded:
            return Phase.OPEN
        upload = self._upload
        live = self.tunnel or (field_value(self.head.fields, names.CONTENT_TYPE) or b"").startswith(GRPC_CONTENT_TYPE)
        return Phase.ASKED if upload.ended or upload.stalled or live else Phase.UPLOADING

    def _show_life(self) -> None:
        """Tell the readers of an event stream that it is still there."""
        if (
            self.response is not None
            and is_event_stream(self.response)
            and at_line_start(self._tail)
            and not self._owed_up
        ):
            self.downstream.send_data(self.stream, KEEP_ALIVE)

    # -- endings ----------------------------------------------------------------------------------------

    def refuse_bad_request(self, refusal: Refusal) -> None:
        """The caller's message turned out malformed, on a connection that can still answer."""
        if self.responded:
            self.on_caller_gone()
        elif not self.finished:
            self._refuse(refusal)

    def _on_deadline(self) -> None:
        self._deadline = None
        if not self.finished:
            if self._up is not None and not self.responded:
                assert self.agent is not None
                self.plane.health.unanswered(self.agent.name, perf_counter() - self.asked_at)
            self._break_off(Refusal(Reason.DEADLINE_EXCEEDED, "flight-timeout ran out before the agent had answered"))

    def _break_off(self, refusal: Refusal, outcome: Outcome = Outcome.FAILED) -> None:
        """It cannot go on: say so while that is possible, else reset."""
        if self.responded:
            self._end_early(refusal)
            self._finish(outcome, refusal)
        else:
            self._refuse(refusal, outcome)

    def _end_early(self, refusal: Refusal) -> None:
        """End an answer that is not whole."""
        response, forward, downstream = self.response, self.forward, self.downstream
        last = None
        if response is not None and forward is not None and not self.tunnel:
            last = last_words(response, self._tail, refusal, forward.packet.id)
        if last is None:
            downstream.reset(self.stream)
            return
        body, trailers = last
        if body:
            downstream.send_data(self.stream, body)
        downstream.end(self.stream, trailers)

    def _refuse(self, refusal: Refusal, outcome: Outcome = Outcome.REFUSED) -> None:
        verdict = self.forward or self.refuse
        packet = verdict.packet if verdict is not None else None
        fields = self.head.fields
        head, body = answer(
            refusal,
            content_type=field_value(fields, names.CONTENT_TYPE) or b"",
            flight_id=packet.id if packet is not None else "",
            revision=self.snapshot.revision,
        )
        self.status = head.status
        self.responded = True
        if self.head.method == b"HEAD":
            body = b""
        self.downstream.send_response(self.stream, head, ended=not body)
        if body:
            self.downstream.send_data(self.stream, body)
            self.downstream.end(self.stream, None)
        self._finish(outcome, refusal)

    def _finish(self, outcome: Outcome, refusal: Refusal | None = None) -> None:
        self.finished = True
        if self._retry is not None:
            self._retry.end()
        if self._stage:
            for stage in self.plane.stages[: self._stage]:
                stage.leave(self, outcome)
        self._upload.drop()
        self._unload()
        if not self._placing:
            self._let_go()
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        up, self._up = self._up, None
        if up is not None:
            # A request that was not sent to its end, or an answer not awaited, is broken off at once.
            up.release(self._up_stream, cancel=outcome is not Outcome.COMPLETED or not self._upload.sent)
        elif self._pool is not None:
            self._pool.cancel(self)
        if self._once is not None:
            self._once.end(self.plane.clock())
            if isinstance(self.downstream, AbsentCaller) and outcome is Outcome.COMPLETED:
                outcome = Outcome.CANCELLED
        self.downstream.release(self.stream)
        self.plane.ended(self, outcome, refusal)

    @property
    def _capability(self) -> str:
        return self.forward.packet.capabilities.label if self.forward is not None else ""
