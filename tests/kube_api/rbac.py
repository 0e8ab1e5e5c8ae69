"""Rights as Roles and bindings give them.  Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from tests.kube_api.store import KINDS, Object


class Asked(NamedTuple):
    """One request, as rights see it."""

    verb: str
    plural: str
    namespace: str
    """Empty for all."""

    @property
    def group(self) -> str:
        version = KINDS[self.plural][0]
        return version.partition("/")[0] if "/" in version else ""


@dataclass(frozen=True)
class Rights:
    """What one service account may do."""

    account: str
    """``namespace/name``."""
    granted: frozenset[tuple[str, str, str, str]]
    """Namespace (empty: all), API group, resource and verb."""

    @classmethod
    def of(cls, account: str, objects: Iterable[Object]) -> Rights:
        """The rights of `account` by the Roles, ClusterRoles and bindings among `objects`."""
        found = list(objects)
        roles = {
            (each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"]): each["rules"]
            for each in found
            if each["kind"] in ("Role", "ClusterRole")
        }
        granted = set()
        for binding in found:
            if binding["kind"] not in ("RoleBinding", "ClusterRoleBinding"):
                continue
            subjects = {
                f"{each['namespace']}/{each['name']}"
                for each in binding["subjects"]
                if each["kind"] == "ServiceAccount"
            }
            if account not in subjects:
                continue
            namespace = binding["metadata"].get("namespace", "")
            kind, name = binding["roleRef"]["kind"], binding["roleRef"]["name"]
            for rule in roles[kind, namespace if kind == "Role" else "", name]:
                granted |= {
                    (namespace, group, resource, verb)
                    for group in rule["apiGroups"]
                    for resource in rule["resources"]
                    for verb in rule["verbs"]
                }
        return cls(account, frozenset(granted))

    def allow(self, asked: Asked) -> bool:
        """Whether the account may do it."""
        rest = asked.group, asked.plural, asked.verb
        return ("", *rest) in self.granted or (asked.namespace, *rest) in self.granted

    def refusal(self, asked: Asked) -> str:
        """What a real server says (k8s.io/apiserver, responsewriters.forbiddenMessage)."""
        user = f"system:serviceaccount:{self.account.replace('/', ':')}"
        where = f'in the namespace "{asked.namespace}"' if asked.namespace else "at the cluster scope"
        return (
            f'{asked.plural}{"." if asked.group else ""}{asked.group} is forbidden: User "{user}" cannot {asked.verb} '
            f'resource "{asked.plural}" in API group "{asked.group}" {where}'
        )
