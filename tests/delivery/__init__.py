"""The chart as Helm renders it, and what must hold of what comes out."""

from __future__ import annotations

import functools
import importlib.resources
import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import jsonschema
import yaml
from referencing import Registry, Resource

Object = dict[str, Any]
Values = dict[str, Any]

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "phoenixflight-gateway"
NAMESPACE = "phoenixflight"
RELEASE = "gateway"
NAME = "gateway-phoenixflight-gateway"
OLDEST, NEWEST = "1.30", "1.34"
"""Versions of Kubernetes whose schemas objects are held against."""

FOREIGN = ("cert-manager.io/", "monitoring.coreos.com/")
"""API groups that Kubernetes itself has no schemas of."""


def tool(name: str) -> str | None:
    """Where `name` is, which tools/test-deps builds."""
    return shutil.which(name, path=str(ROOT / ".tools")) or shutil.which(name)


def helm(*arguments: str, values: Values | None = None) -> subprocess.CompletedProcess[str]:
    """What Helm answers, with `values` in a file."""
    program = tool("helm")
    assert program is not None
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        json.dump(values or {}, file)
        file.flush()
        options = ["--namespace", NAMESPACE, "--values", file.name, "--kube-version", f"{NEWEST}.0"]
        command = [program, *arguments, str(CHART), *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def rendered(values: Values | None = None) -> list[Object]:
    """All objects that a release with `values` has."""
    return [each for each in yaml.safe_load_all(_manifest(json.dumps(values or {}))) if each]


@functools.cache
def _manifest(values: str) -> str:
    done = helm("template", RELEASE, values=json.loads(values))
    assert done.returncode == 0, done.stderr
    return done.stdout


def refusal(values: Values) -> str:
    """Why Helm makes nothing of `values`."""
    done = helm("template", RELEASE, values=values)
    assert done.returncode != 0, "nothing was wrong with it"
    return done.stderr


def of_kind(objects: list[Object], kind: str, name: str = "") -> Object:
    """The only object of a kind, or that with a name."""
    found = [each for each in objects if each["kind"] == kind and name in ("", each["metadata"]["name"])]
    assert len(found) == 1, [each["metadata"]["name"] for each in found]
    return found[0]


def pod_of(objects: list[Object]) -> Object:
    """The gateway's pod template."""
    found: Object = of_kind(
        objects, "Deployment" if any(each["kind"] == "Deployment" for each in objects) else "DaemonSet"
    )
    template: Object = found["spec"]["template"]
    return template


def settings_of(objects: list[Object]) -> str:
    """The rendered gateway.yaml."""
    [found] = [each for each in objects if "-settings-" in each["metadata"]["name"]]
    text: str = found.get("data", found.get("stringData"))["gateway.yaml"]
    return text


def schemas(version: str) -> Path:
    """The folder of Kubernetes' schemas, which take no fields that they do not know."""
    found = importlib.resources.files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}.0-local-strict"
    return Path(str(found))


@functools.cache
def _registry(version: str) -> tuple[Path, Registry[Any]]:
    folder = schemas(version)
    definitions = json.loads((folder / "_definitions.json").read_text())
    return folder, Registry().with_resource("_definitions.json", Resource.from_contents(definitions))


@functools.cache
def _validator(version: str, api_version: str, kind: str) -> Any:
    folder, registry = _registry(version)
    group, _, name = api_version.rpartition("/")
    suffix = f"{group.partition('.')[0]}-{name}" if group else name
    schema = json.loads((folder / f"{kind.lower()}-{suffix}.json").read_text())
    return jsonschema.Draft202012Validator(schema, registry=registry)


def mistakes(found: Object) -> list[str]:
    """Where an object is not as Kubernetes' schemas have it, in the oldest version and in the newest."""
    if found["apiVersion"].startswith(FOREIGN):
        return []
    return [
        f"{version}: {found['kind']} {'.'.join(map(str, error.absolute_path))}: {error.message[:200]}"
        for version in (OLDEST, NEWEST)
        for error in _validator(version, found["apiVersion"], found["kind"]).iter_errors(found)
    ]
