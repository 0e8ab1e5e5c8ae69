"""Values as platforms have them."""

from __future__ import annotations

from tests.delivery import Values

EXPOSED: Values = {"exposed": True, "tokenSecret": {"name": "admin-token"}}

MATRIX: dict[str, Values] = {
    "as it comes": {},
    "an issuer of the platform's": {
        "identity": {"certManager": {"issuerRef": {"name": "mesh"}, "dnsNames": ["gw.example"]}}
    },
    "a CSI driver": {"identity": {"source": "csi"}},
    "a Secret, with a revocation list": {
        "identity": {"source": "secret", "secretName": "svid", "files": {"crl": ["ca.crl"]}},
        "connectAuthority": {"secretName": "connect-ca"},
        "keys": {"configMap": "signers"},
    },
    "on each node": {
        "kind": "DaemonSet",
        "service": {"internalTrafficPolicy": "Local"},
        "tolerations": [{"operator": "Exists"}],
        "priorityClassName": "system-node-critical",
    },
    "some namespaces": {"kubernetes": {"namespaces": ["agents", "lab"]}},
    "no Kubernetes membership": {
        "kubernetes": {"enabled": False},
        "members": {"agents": [{"name": "executor", "address": "10.0.0.7:8080", "capabilities": ["code.execute"]}]},
    },
    "scraped by its Service": {
        "admin": EXPOSED,
        "monitoring": {"monitor": "ServiceMonitor", "rules": {"enabled": True}, "dashboards": {"enabled": True}},
    },
    "scraped by its pods, without TLS": {
        "admin": {**EXPOSED, "tls": False},
        "monitoring": {"monitor": "PodMonitor", "labels": {"release": "prometheus"}},
    },
    "scraped by certificate": {
        "admin": {"exposed": True, "allow": ["spiffe://mesh.local/ns/monitoring/**"]},
        "monitoring": {"monitor": "PodMonitor", "tlsConfig": {"insecureSkipVerify": True}},
    },
    "scaled": {
        "autoscaling": {
            "enabled": True,
            "inFlight": 500,
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 600}},
        },
        "podDisruptionBudget": {"maxUnavailable": "25%"},
    },
    "with a Redis of its own": {"redis": {"enabled": True, "storageClass": "fast"}, "gateway": {"workers": 4}},
    "with a Redis that has a password": {"redis": {"url": "rediss://:secret@redis.example:6380/0"}},
    "plaintext as well, behind a balancer": {
        "listeners": {
            "mesh": {"port": 8443, "servicePort": 443, "clientAuth": "optional"},
            "plain": {"port": 8080, "tls": False, "assumedPrincipal": "spiffe://mesh.local/ns/dev/sa/local"},
            "inside": {"port": 9000, "service": False},
        },
        "service": {
            "type": "LoadBalancer",
            "externalTrafficPolicy": "Local",
            "loadBalancerSourceRanges": ["10.0.0.0/8"],
            "annotations": {"example.com/internal": "true"},
        },
        "ipFamilies": ["IPv4", "IPv6"],
    },
    "a closed network": {
        "networkPolicy": {
            "callers": [{"namespaceSelector": {"matchLabels": {"agents": "true"}}}],
            "scrapers": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
            "egress": {"enabled": True, "to": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]},
        },
        "admin": EXPOSED,
        "redis": {"enabled": True},
    },
    "policies and settings": {
        "policies": {
            "documents": {
                "all.yaml": {
                    "apiVersion": "phoenixflight.io/v1",
                    "kind": "TrustPolicy",
                    "metadata": {"name": "all"},
                    "spec": {
                        "capabilities": ["*"],
                        "rules": [{"name": "all", "effect": "allow", "from": ["spiffe://**"]}],
                    },
                },
                "text.yaml": "# as text\n",
            }
        },
        "gateway": {
            "limits": {"maxConnections": 5000000, "responseTimeout": "10m"},
            "leases": {"idle": "5m", "capacity": 1000000},
            "health": {"check": {"type": "http", "path": "/healthz", "interval": "5s", "timeout": "1s"}},
            "telemetry": {"tracing": {"otlpEndpoint": "http://collector:4318/v1/traces", "sampleRatio": 0.01}},
        },
        "drain": {"delay": "1500ms", "timeout": "2m"},
    },
    "everything of a pod": {
        "podLabels": {"team": "mesh"},
        "podAnnotations": {"example.com/a": "b"},
        "commonLabels": {"cost": "7"},
        "nodeSelector": {"disk": "fast"},
        "affinity": {"nodeAffinity": {}},
        "topologySpread": [],
        "image": {"digest": "sha256:" + "0" * 64, "pullSecrets": ["registry"]},
        "extraEnv": [{"name": "PHOENIXFLIGHT_HTTP2", "value": "jh2"}],
        "extraVolumes": [{"name": "more", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
        "extraContainers": [{"name": "beside", "image": "example/beside:1"}],
        "data": {"volume": {"emptyDir": {"medium": "Memory"}}},
        "serviceAccount": {"create": False, "name": "ours"},
        "rbac": {"create": False},
        "fullnameOverride": "gw",
    },
}
