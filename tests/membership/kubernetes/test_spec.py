"""What is told about Kubernetes."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from gateway.membership.kubernetes import IpFamily, KubernetesSpec


def test_nothing_told_is_all_namespaces_of_the_cluster_that_the_gateway_runs_in() -> None:
    spec = KubernetesSpec()
    assert (spec.namespaces, spec.kubeconfig, spec.prefer_ip_family) == ((), None, IpFamily.IPV4)


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        ({"context": "staging"}, "a context is one of a kubeconfig"),
        ({"namespaces": ["a", "a"]}, "a namespace stands here twice"),
        ({"namespaces": ["../a"]}, "pattern"),
        ({"preferIpFamily": "IPv5"}, "IPv4"),
    ],
)
def test_what_makes_no_sense_is_refused(told: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        KubernetesSpec.model_validate(told)
