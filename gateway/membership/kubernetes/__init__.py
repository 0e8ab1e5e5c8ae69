"""Agents from Kubernetes: Services that say they are agents, and the pods behind them.

Enters: Service, EndpointSlice and Endpoints objects, as an API server lists and watches them.  Leaves: `Agent` values,
and what is wrong with objects.  All but `api`, `watch` and `source` is pure, and needs no Kubernetes client.
"""

from gateway.membership.kubernetes.catalog import Catalog
from gateway.membership.kubernetes.spec import IpFamily, KubernetesSpec

__all__ = ["Catalog", "IpFamily", "KubernetesSpec"]
