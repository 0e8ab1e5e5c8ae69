"""The API server of the tests has the manners of a real one: the same dialogues with both, where there are both."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.kube_api import KubeApi
from tests.kube_api.real import RealApi, missing
from tests.membership.kubernetes.cluster import pod, service, slice_of

SELECTOR = "phoenixflight.io/agent=true"
SERVICES = "/api/v1/services"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/agents/endpointslices"
REAL = pytest.param(RealApi, marks=[pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing())])


@pytest.fixture(scope="module", params=[KubeApi, REAL])
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """An API server of each kind."""
    server = request.param(tmp_path_factory.mktemp("api"))
    yield server
    server.stop()


@pytest.fixture
def client(api: KubeApi | RealApi) -> Iterator[httpx.Client]:
    roots = ssl.create_default_context(cafile=Path(api.folder) / "ca.pem")
    headers = {"authorization": f"Bearer {api.token}"}
    base_url = f"https://127.0.0.1:{api.port}"
    with httpx.Client(base_url=base_url, verify=roots, headers=headers, trust_env=False, timeout=20) as found:
        yield found


def watch(client: httpx.Client, path: str, **query: str) -> list[dict[str, Any]]:
    """All events of one watch that lasts a second."""
    asked = {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": "1", **query}
    lines = client.get(path, params=asked).text.splitlines()
    return [json.loads(line) for line in lines]


def test_a_watch_tells_what_a_selector_sees_in_order(api: KubeApi | RealApi, client: httpx.Client) -> None:
    begin = client.get(SERVICES, params={"labelSelector": SELECTOR}).json()["metadata"]["resourceVersion"]
    api.put("services", service("one"))
    api.put("services", service("one", labels={"phoenixflight.io/agent": "false"}))
    api.put("services", service("one"))
    api.put("services", service("one", labels={"tier": "gold"}))
    api.delete("services", "agents", "one")
    events = watch(client, SERVICES, labelSelector=SELECTOR, resourceVersion=begin)
    writes = [each for each in events if each["type"] != "BOOKMARK"]
    assert [each["type"] for each in writes] == ["ADDED", "DELETED", "ADDED", "MODIFIED", "DELETED"]
    versions = [int(each["object"]["metadata"]["resourceVersion"]) for each in writes]
    assert versions == sorted(set(versions))
    assert versions[0] > int(begin)
    # What is no longer selected is told as it was when it still was.
    assert writes[1]["object"]["metadata"]["labels"]["phoenixflight.io/agent"] == "true"
    assert {each["object"]["kind"] for each in events} == {"Service"}


def test_a_watch_can_go_on_in_the_middle(api: KubeApi | RealApi, client: httpx.Client) -> None:
    begin = api.put("services", service("two"))
    api.put("services", service("two", labels={"tier": "gold"}))
    after = api.put("services", service("two", labels={"tier": "iron"}))
    events = watch(client, SERVICES, resourceVersion=str(begin))
    assert [each["type"] for each in events if each["type"] != "BOOKMARK"] == ["MODIFIED", "MODIFIED"]
    later = watch(client, SERVICES, resourceVersion=str(after))
    assert {each["type"] for each in later} <= {"BOOKMARK"}


def test_a_watch_from_too_long_ago_is_an_error_event_of_410(api: KubeApi | RealApi, client: httpx.Client) -> None:
    if isinstance(api, RealApi):
        api.down()  # with it goes what it remembered
        api.up()
    (event,) = watch(client, SERVICES, resourceVersion="1")
    assert event["type"] == "ERROR"
    assert (event["object"]["kind"], event["object"]["code"], event["object"]["reason"]) == ("Status", 410, "Expired")


def test_the_pages_of_a_list_are_of_one_version(api: KubeApi | RealApi, client: httpx.Client) -> None:
    for number in range(3):
        api.put("endpointslices", slice_of("coder", pod(None, f"10.1.0.{number + 1}"), suffix=str(number)))
    first = client.get(SLICES, params={"limit": "2"}).json()
    api.delete("endpointslices", "agents", "coder-2")
    more = first["metadata"]["continue"]
    second = client.get(SLICES, params={"limit": "2", "continue": more}).json()
    assert [len(page["items"]) for page in (first, second)] == [2, 1]
    assert first["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]
    assert "continue" not in second["metadata"]


def test_who_has_no_good_token_is_told_401(api: KubeApi | RealApi, client: httpx.Client) -> None:
    answer = client.get(SERVICES, headers={"authorization": "Bearer no"})
    assert (answer.status_code, answer.json()["reason"]) == (401, "Unauthorized")


def test_what_is_not_served_is_404(api: KubeApi | RealApi, client: httpx.Client) -> None:
    assert client.get("/apis/discovery.k8s.io/v1/nothing").status_code in (403, 404)
