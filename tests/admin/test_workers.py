"""Several workers are shown, and ordered about, as one gateway."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.admin.operators import ASKING, Watching, asking, ok, operator, order, packet, with_token
from tests.conftest import RawAgent, RunningGateway, launch, member
from tests.redis_server import RedisServer
from tests.waiting import eventually

PACKETS = 24
pytestmark = pytest.mark.slow


@pytest.fixture
def gateway(redis: RedisServer, certs: Path, tmp_path: Path) -> Iterator[RunningGateway]:
    agent = RawAgent(ok)
    folder = tmp_path / "workers"
    folder.mkdir()
    members = [member(agent.port), member(agent.port, "executor-2")]
    redis_spec = {"url": redis.url}
    running = launch(
        folder, certs, members, policy=ASKING, admin_spec=with_token(tmp_path), workers=2, redis=redis_spec
    )
    yield running
    running.stop()
    agent.close()


def send(gateway: RunningGateway) -> list[str]:
    """Packets of one conversation, each on a connection of its own, each the child of the one before."""
    sent: list[str] = []
    for number in range(PACKETS):
        parent = {"parent": sent[-1]} if sent else {}
        with gateway.client() as client:
            head = packet(f"p{number}", conversation="c", **parent)
            assert client.post("/run", headers=head).status_code == 200
        sent.append(f"p{number}")
    return sent


def test_workers_are_shown_as_one_gateway(gateway: RunningGateway) -> None:
    with operator(gateway) as admin, operator(gateway) as looking, Watching(looking) as live:
        sent = send(gateway)
        eventually(lambda: sorted(live.ids) == sorted(sent))
        state = live.named("state")[-1]
        assert state["ready"]
        assert state["revision"] == admin.get("/status").json()["revision"]
        shown = admin.get("/handoffs?limit=1000").json()["handoffs"]
        assert [each["flight_id"] for each in shown] == sent[::-1], "of both, the newest first"
        assert len(admin.get("/handoffs?limit=3").json()["handoffs"]) == 3
        (conversation,) = admin.get("/conversations").json()["conversations"]
        assert (conversation["id"], conversation["handoffs"], conversation["open"]) == ("c", PACKETS, 0)
        node = {"children": admin.get("/conversations/c").json()["handoffs"]}
        for flight_id in sent:
            (node,) = node["children"]
            assert node["flight_id"] == flight_id, "a parent that came to the other worker is found"
        (policy,) = admin.get("/policies").json()["policies"]
        assert policy["rules"][0]["hits"] == PACKETS
        members = admin.get("/members").json()["members"]
        assert [(each["name"], each["state"]) for each in members] == [("executor-1", "ready"), ("executor-2", "ready")]
        assert sum(each["share"] for each in admin.get("/ring").json()["members"]) == pytest.approx(1)
        tasks = admin.get("/debug/tasks").json()
        assert any(each["count"] == 2 and "Gateway._keep_up" in each["stack"][0] for each in tasks["places"])
        profile = admin.get("/debug/profile?seconds=0.3&hz=50").text
        assert {line.partition(";")[0] for line in profile.splitlines()} == {"worker 0", "worker 1"}
        assert admin.get("/tasks/none").status_code == 404


def test_a_packet_that_waits_in_one_worker_is_shown_and_answered_for_at_the_port_of_all(
    gateway: RunningGateway,
) -> None:
    with operator(gateway) as admin:
        connections = [asking(gateway, f"w{number}") for number in range(6)]
        waiting = eventually(lambda: found if len(found := admin.get("/approvals").json()["approvals"]) == 6 else None)
        assert {each["flight_id"] for each in waiting} == {f"w{number}" for number in range(6)}
        for each in waiting:
            decided = admin.post(f"/approvals/{each['id']}", json={"decision": "approve"})
            assert (decided.status_code, decided.json()["by"]) == (200, "token from 127.0.0.1")
        for connection in connections:
            with connection:
                assert connection.recv(12) == b"HTTP/1.1 200"
        assert admin.post(f"/approvals/{waiting[0]['id']}", json={"decision": "approve"}).status_code == 404
        assert admin.post(f"/approvals/{waiting[0]['id']}", json={"decision": "perhaps"}).status_code == 400
        assert 'phoenixflight_approvals_total{outcome="approved"} 6.0' in admin.get("/metrics").text


def test_an_order_reaches_every_worker_and_those_that_take_the_place_of_one(gateway: RunningGateway) -> None:
    with operator(gateway) as admin, operator(gateway) as looking, Watching(looking) as live:
        drained = order(admin, "members/executor-1/drain")
        assert (drained.status_code, drained.json()["state"]) == (200, "draining")
        assert "drained by token from 127.0.0.1" in drained.json()["why"]
        workers = [each["pid"] for each in admin.get("/status").json()["workers"]]
        os.kill(workers[0], signal.SIGKILL)
        eventually(lambda: all(each["status"] for each in admin.get("/status").json()["workers"]), 30)
        assert workers[0] not in [each["pid"] for each in admin.get("/status").json()["workers"]]
        known = len(live.named("state"))
        eventually(lambda: len(live.named("state")) > known + 2)
        assert states_of(admin, "executor-1") == {"draining"}
        sent = send(gateway)
        eventually(lambda: set(sent) <= set(live.ids))
        assert {each["agent"] for each in live.named("handoff")} == {"executor-2"}
        assert order(admin, "members/executor-1/restore").json()["state"] == "ready"
        assert order(admin, "members/nobody/drain").status_code == 404
        assert order(admin, "reload").json() == {"revision": admin.get("/status").json()["revision"]}
        assert gateway.stop() == 0
        assert live.ended.wait(5)
    log = gateway.log()
    assert "operator token from 127.0.0.1: drain executor-1: done" in log
    assert "operator token from 127.0.0.1: reload: 200" in log


def states_of(admin: httpx.Client, name: str) -> set[str]:
    return {each["state"] for each in admin.get("/members").json()["members"] if each["name"] == name}
