"""A source that runs against an API server: what is relied on while that server is well, and while it is not."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gateway.membership.kubernetes import KubernetesSpec
from gateway.membership.kubernetes.api import ApiTrouble, load_config
from gateway.membership.kubernetes.watch import FIRST_RETRY_S, MAX_RETRY_S, pause_s
from gateway.routing import AgentState
from tests.kube_api import KubeApi
from tests.membership.kubernetes.cluster import ENDING, UNREADY, endpoints, following, pod, service, slice_of

CODER = slice_of("coder", pod("coder-0", "10.0.0.1"))


def coder_at(address: str) -> dict[str, Any]:
    return slice_of("coder", pod("coder-0", address))


def write_coder(api: KubeApi) -> None:
    api.put("services", service())
    api.put("endpointslices", CODER)


class TestFollowing:
    async def test_services_that_are_agents_become_members_and_others_do_not(self, api: KubeApi) -> None:
        write_coder(api)
        other = service("database")
        other["metadata"]["labels"] = {}
        api.put("services", other)
        api.put("endpointslices", slice_of("database", pod("database-0", "10.0.0.9")))
        async with following(api) as follower:
            await follower.until(lambda: follower.hosts() == {"coder-0.agents": "10.0.0.1"})

    async def test_readiness_is_followed_from_ready_to_draining_to_gone(self, api: KubeApi) -> None:
        write_coder(api)
        async with following(api) as follower:
            await follower.until(lambda: follower.agents)
            api.put("endpointslices", slice_of("coder", pod("coder-0", "10.0.0.1", ENDING)))
            await follower.until(lambda: follower.agents["coder-0.agents"].state is AgentState.DRAINING)
            api.put("endpointslices", slice_of("coder", pod("coder-0", "10.0.0.1", UNREADY)))
            await follower.until(lambda: not follower.agents)

    async def test_a_service_that_loses_its_label_loses_its_agents(self, api: KubeApi) -> None:
        write_coder(api)
        async with following(api) as follower:
            await follower.until(lambda: follower.agents)
            api.put("services", service(labels={"phoenixflight.io/agent": "false"}))
            await follower.until(lambda: not follower.agents)

    async def test_a_burst_of_changes_is_one_change(self, api: KubeApi) -> None:
        api.put("services", service())
        async with following(api) as follower:
            await follower.watching()
            pods = [slice_of("coder", pod(f"coder-{n}", f"10.0.0.{n}"), suffix=str(n)) for n in range(1, 51)]
            before = follower.changes
            api.put("endpointslices", *pods)
            await follower.until(lambda: len(follower.agents) == 50)
            assert follower.changes - before <= 10

    async def test_mistakes_are_told_until_they_are_mended(self, api: KubeApi) -> None:
        write_coder(api)
        async with following(api) as follower:
            await follower.until(lambda: follower.agents)
            api.put("services", service(annotations={"phoenixflight.io/trust": "much"}))
            await follower.until(lambda: follower.problems)
            assert "from 0 to 1" in follower.problems["agents/coder"]
            assert follower.source.status()["problems"] == dict(follower.problems)
            api.put("services", service())
            await follower.until(lambda: follower.agents and not follower.problems)

    async def test_an_object_that_cannot_be_read_is_one_problem(self, api: KubeApi) -> None:
        write_coder(api)
        strange = service("strange")
        strange["spec"]["ports"] = [{"name": "http", "port": "eighty"}]
        api.put("services", strange)
        async with following(api) as follower:
            await follower.until(lambda: follower.agents)
            assert "cannot be read" in follower.problems["agents/strange"]
            api.put("services", service("strange"))
            await follower.until(lambda: not follower.problems)

    async def test_only_the_namespaces_that_are_named_count(self, api: KubeApi) -> None:
        for namespace in ("one", "two", "three"):
            api.put("services", service(namespace=namespace))
            api.put("endpointslices", slice_of("coder", pod(None, "10.0.0.1"), namespace=namespace))
        async with following(api, namespaces=("one", "two")) as follower:
            await follower.until(lambda: {"coder-10-0-0-1.one", "coder-10-0-0-1.two"} == set(follower.agents))
            api.tell("interrupt", how="gone")
            await follower.watching()
            assert len(follower.agents) == 2
            assert len(follower.source.status()["watches"]) == 4  # type: ignore[arg-type]

    async def test_a_list_of_many_pages_is_read_to_its_end(self, api: KubeApi) -> None:
        api.put("services", service())
        pods = [slice_of("coder", pod(f"coder-{n}", f"10.0.{n // 250}.{n % 250}"), suffix=str(n)) for n in range(1100)]
        api.put("endpointslices", *pods)
        async with following(api) as follower:
            await follower.until(lambda: len(follower.agents) == 1100)
            assert len(api.requests("list", "endpointslices")) == 3

    async def test_where_slices_are_not_served_endpoints_are_followed(self, api: KubeApi) -> None:
        api.tell("serve", plural="endpointslices", served=False)
        api.put("services", service())
        api.put("endpoints", endpoints("coder", {"ip": "10.0.0.1"}))
        async with following(api) as follower:
            await follower.until(lambda: list(follower.agents) == ["coder-10-0-0-1.agents"])
            api.put("endpoints", endpoints("coder", {"ip": "10.0.0.2"}))
            await follower.until(lambda: list(follower.agents) == ["coder-10-0-0-2.agents"])
            api.tell("serve", plural="endpointslices", served=True)
            api.put("endpointslices", CODER)
            api.interrupt("end", "endpoints")
            await follower.until(lambda: list(follower.agents) == ["coder-0.agents"])


class TestTrouble:
    async def test_a_server_that_cannot_be_reached_empties_nothing(self, api: KubeApi) -> None:
        write_coder(api)
        async with following(api) as follower:
            await follower.watching()
            await asyncio.to_thread(api.down)
            await follower.until(lambda: follower.watch("services")["failures"] >= 2)
            status = follower.watch("services")
            assert status["state"] == "backing off"
            assert status["resourceVersion"].isdecimal()
            assert "cannot be reached" in status["lastError"]
            assert follower.hosts() == {"coder-0.agents": "10.0.0.1"}
            api.put("endpointslices", coder_at("10.0.0.2"))
            api.up()
            await follower.until(lambda: follower.hosts() == {"coder-0.agents": "10.0.0.2"})
            await follower.until(lambda: follower.watch("services")["lastError"] is None)

    @pytest.mark.parametrize("how", ["cut", "end"])
    async def test_a_watch_that_breaks_goes_on_where_it_was_without_a_list(self, api: KubeApi, how: str) -> None:
        write_coder(api)
        async with following(api) as follower:
            await follower.watching()
            await follower.until(lambda: len(api.tell("watchers")) == 2)
            assert api.interrupt(how) == 2
            api.put("endpointslices", coder_at("10.0.0.2"))
            await follower.until(lambda: follower.hosts() == {"coder-0.agents": "10.0.0.2"})
            assert len(api.requests("list")) == 2

    async def test_half_an_event_is_no_event(self, api: KubeApi) -> None:
        write_coder(api)
        api.fault("cut", verb="watch", plural="endpointslices")
        async with following(api) as follower:
            await follower.until(lambda: len(api.requests("watch", "endpointslices")) >= 2)
            api.put("endpointslices", coder_at("10.0.0.2"))
            await follower.until(lambda: follower.hosts() == {"coder-0.agents": "10.0.0.2"})

    async def test_a_version_that_is_too_old_has_all_listed_again_with_deletions_that_were_missed(
        self, api: KubeApi
    ) -> None:
        write_coder(api)
        api.put("endpointslices", slice_of("coder", pod("coder-1", "10.0.0.7"), suffix="b"))
        async with following(api) as follower:
            await follower.until(lambda: len(follower.agents) == 2)
            await asyncio.to_thread(api.down)
            api.delete("endpointslices", "agents", "coder-b")
            api.put("endpointslices", coder_at("10.0.0.2"))
            api.tell("compact")
            api.up()
            await follower.until(lambda: follower.hosts() == {"coder-0.agents": "10.0.0.2"})

    @pytest.mark.parametrize("fault", [{"do": "gone"}, {"do": "status", "code": 410}])
    async def test_gone_as_an_event_or_as_a_status_has_all_listed_again(self, api: KubeApi, fault: Any) -> None:
        write_coder(api)
        api.fault(verb="watch", plural="endpointslices", **fault)
        async with following(api) as follower:
            await follower.until(lambda: len(api.requests("list", "endpointslices")) == 2)
            await follower.watching()
            assert len(follower.agents) == 1

    async def test_a_list_whose_next_page_is_gone_begins_again(self, api: KubeApi) -> None:
        api.put("services", service())
        api.put("endpointslices", *(slice_of("coder", pod(f"c-{n}", "10.0.0.1"), suffix=str(n)) for n in range(600)))
        api.fault("slow", seconds=0.0, verb="list", plural="endpointslices")
        api.fault("status", code=410, verb="list", plural="endpointslices")
        async with following(api) as follower:
            await follower.until(lambda: len(follower.agents) == 600)
            assert len(api.requests("list", "endpointslices")) == 4

    async def test_too_many_requests_is_waited_out_as_long_as_the_server_says(self, api: KubeApi) -> None:
        write_coder(api)
        api.fault("status", code=429, retry_after=1, verb="list", plural="services")
        async with following(api) as follower:
            await follower.until(lambda: follower.agents)
        first, second = (each["at"] for each in api.requests("list", "services"))
        assert second - first >= 1.0

    async def test_bookmarks_move_the_version_on_and_stale_ones_do_not_move_it_back(self, api: KubeApi) -> None:
        write_coder(api)
        async with following(api) as follower:
            await follower.watching()
            version = api.put("services", service("reviewer"))
            await follower.until(lambda: follower.watch("endpointslices")["resourceVersion"] == str(version))
            await follower.until(lambda: api.interrupt("stale-bookmark", "endpointslices"))
            api.interrupt("end", "endpointslices")
            await follower.until(lambda: len(api.requests("watch", "endpointslices")) >= 2)
            assert api.requests("watch", "endpointslices")[-1]["query"]["resourceVersion"] == str(version)
            assert len(api.requests("list", "endpointslices")) == 1

    async def test_a_slow_answer_delays_only_what_is_asked(self, api: KubeApi) -> None:
        write_coder(api)
        api.fault("slow", seconds=0.3, verb="watch", plural="services")
        async with following(api) as follower:
            await follower.until(lambda: follower.agents)
            api.put("endpointslices", coder_at("10.0.0.2"))
            await follower.until(lambda: follower.hosts() == {"coder-0.agents": "10.0.0.2"})

    async def test_answers_that_go_on_to_refuse_a_watch_have_all_listed_again(self, api: KubeApi) -> None:
        write_coder(api)
        api.fault("status", code=504, times=3, verb="watch", plural="endpointslices")
        async with following(api) as follower:
            await follower.until(lambda: len(api.requests("list", "endpointslices")) == 2)
            await follower.watching()

    async def test_status_tells_of_each_watch_what_it_does_and_when_it_last_heard(self, api: KubeApi) -> None:
        async with following(api) as follower:
            assert follower.source.status()["listed"] is False
            await follower.watching()
            assert follower.source.status()["listed"] is True
            status = follower.watch("endpointslices")
            assert status["state"] == "watching"
            await follower.until(lambda: follower.watch("endpointslices")["ageSeconds"] < 0.1)
            assert status["resourceVersion"].isdecimal()


class TestCredentials:
    async def test_a_pod_uses_its_service_account(self, api: KubeApi, monkeypatch: pytest.MonkeyPatch) -> None:
        write_coder(api)
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(api.port))
        async with following(api, in_cluster=True) as follower:
            await follower.until(lambda: follower.agents)

    async def test_a_token_that_was_rotated_is_read_again(self, api: KubeApi) -> None:
        write_coder(api)
        async with following(api) as follower:
            await follower.watching()
            api.rotate_token("token-2")
            api.interrupt("end")
            api.put("endpointslices", coder_at("10.0.0.2"))
            await follower.until(lambda: follower.hosts() == {"coder-0.agents": "10.0.0.2"})

    async def test_a_token_that_comes_late_is_found(self, api: KubeApi) -> None:
        write_coder(api)
        async with following(api) as follower:
            await follower.watching()
            api.rotate_token("token-2", file=False)
            api.interrupt("end")
            await follower.until(lambda: "401" in (follower.watch("services")["lastError"] or ""))
            assert len(follower.agents) == 1
            (api.service_account / "token").write_text("token-2")
            api.put("endpointslices", coder_at("10.0.0.2"))
            await follower.until(lambda: follower.hosts() == {"coder-0.agents": "10.0.0.2"})

    async def test_a_kubeconfig_with_inline_roots_and_token_will_do(self, api: KubeApi) -> None:
        write_coder(api)
        config = yaml.safe_load(api.kubeconfig.read_text())
        roots = base64.b64encode((api.folder / "ca.pem").read_bytes()).decode()
        config["clusters"][0]["cluster"] = {
            "server": f"https://127.0.0.1:{api.port}",
            "certificate-authority-data": roots,
        }
        config["users"][0]["user"] = {"token": api.token}
        config["contexts"].append({"name": "other", "context": config["contexts"][0]["context"]})
        api.kubeconfig.write_text(yaml.safe_dump(config))
        async with following(api, context="other") as follower:
            await follower.until(lambda: follower.agents)

    async def test_without_credentials_the_source_waits_for_them(self, api: KubeApi) -> None:
        write_coder(api)
        text = api.kubeconfig.read_text()
        api.kubeconfig.unlink()
        async with following(api) as follower:
            await follower.until(lambda: follower.watch("services")["lastError"])
            assert "not found" in follower.watch("services")["lastError"]
            api.kubeconfig.write_text(text)
            await follower.until(lambda: follower.agents)

    def test_a_kubeconfig_that_is_still_being_written_is_told_of(self, api: KubeApi) -> None:
        written = api.kubeconfig.read_text()
        unusable = 0
        for end in range(len(written)):
            api.kubeconfig.write_text(written[:end])
            try:
                load_config(KubernetesSpec(kubeconfig=api.kubeconfig))
            except ApiTrouble as trouble:
                unusable += 1
                assert "no way to the API server is configured: " in str(trouble)
        assert unusable > len(written) // 2

    async def test_a_server_that_others_vouch_for_is_not_trusted(self, api: KubeApi, certs: Path) -> None:
        write_coder(api)
        (api.folder / "ca.pem").write_bytes((certs / "ca.pem").read_bytes())
        async with following(api) as follower:
            await follower.until(lambda: "CERTIFICATE_VERIFY_FAILED" in (follower.watch("services")["lastError"] or ""))
            assert not follower.agents


@given(st.integers(1, 1000), st.floats(0, 1))
def test_waits_grow_with_failures_to_a_bound_and_any_part_of_one_may_be_chosen(failures: int, entropy: float) -> None:
    longest_s = min(MAX_RETRY_S, FIRST_RETRY_S * 2 ** (failures - 1))
    assert pause_s(failures, entropy) == pytest.approx(entropy * longest_s)
