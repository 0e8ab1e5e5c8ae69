"""A gateway that runs as the chart has it: the settings that are rendered, volumes as the kubelet mounts them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import ConfigMap, RunningGateway, eventually
from tests.delivery import Object, pod_of, settings_of
from tests.waiting import free_port

FOLDER = "/etc/phoenixflight"


@dataclass
class Mounted:
    """The volumes of the pod, under a folder of the test's."""

    folder: Path
    maps: dict[str, ConfigMap]
    """By the volume's name."""
    admin_port: int


def mounted(objects: list[Object], folder: Path, certs: Path, **spec: Any) -> Mounted:
    """Write what the pod of `objects` finds below /etc/phoenixflight into `folder`.

    Args:
        objects: as they are rendered.
        folder: an empty one.
        certs: development's: the Secret with the identity has them.
        spec: replaces settings, such as the way to the API server, which is not there in a cluster.

    """
    contents = {each["metadata"]["name"]: each.get("data", {}) for each in objects if each["kind"] == "ConfigMap"}
    pod = pod_of(objects)["spec"]
    volumes = {each["name"]: each for each in pod["volumes"]}
    maps = {}
    for mount in pod["containers"][0]["volumeMounts"]:
        volume = volumes[mount["name"]]
        where = folder / str(mount["mountPath"]).removeprefix("/").replace("/", "-")
        if "configMap" in volume:
            maps[mount["name"]] = ConfigMap(where, contents[volume["configMap"]["name"]])
        elif mount["name"] == "identity":
            files = {"tls.crt": "gateway.pem", "tls.key": "gateway-key.pem", "ca.crt": "ca.pem"}
            maps["identity"] = ConfigMap(where, {key: (certs / name).read_text() for key, name in files.items()})
    text = settings_of(objects).replace(f"{FOLDER}/", f"{folder / 'etc-phoenixflight-'}")
    document = yaml.safe_load(text)
    port = free_port()
    document["spec"]["admin"]["address"] = f"127.0.0.1:{port}"
    for each in document["spec"]["listeners"]:
        each["address"] = f"127.0.0.1:{free_port()}"
    document["spec"] |= spec
    maps["settings"].swap({"gateway.yaml": yaml.safe_dump(document)})
    return Mounted(folder, maps, port)


def start(found: Mounted, certs: Path, *, ready: bool = True) -> RunningGateway:
    """The gateway over what is mounted."""
    config = found.maps["settings"].folder / "gateway.yaml"
    address = yaml.safe_load(config.read_text())["spec"]["listeners"][0]["address"]
    with (found.folder / "stderr.log").open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway.cli", "run", "--config", str(config)], stdout=errors, stderr=errors
        )
    running = RunningGateway(process, found.folder, certs, int(address.rpartition(":")[2]), 0, found.admin_port)
    eventually(running.ready if ready else lambda: _alive(running), 40)
    return running


def _alive(running: RunningGateway) -> bool:
    running.ready()
    return "ready: mesh" in running.log()
