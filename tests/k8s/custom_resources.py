"""
Schemas of the custom resources in ``k8s/``, as far as the manifests use them: no published schema is at hand.

The rule: closed objects. A key that does not stand here is taken for a mistake until somebody has looked it up in its
operator's reference.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]


def table(members: Schema, *required: str) -> Schema:
    """An object of these *members*, and no others."""
    return {"type": "object", "properties": members, "required": list(required), "additionalProperties": False}


def items(of: Schema) -> Schema:
    """A list of at least one."""
    return {"type": "array", "items": of, "minItems": 1}


TEXT: Schema = {"type": "string", "minLength": 1}
TEXTS: Schema = {"type": "object", "additionalProperties": TEXT}
DURATION: Schema = {"type": "string", "pattern": "^([0-9]+(ms|s|m|h))+$"}

SELECTOR = table(
    {
        "matchLabels": TEXTS,
        "matchExpressions": items(
            table(
                {"key": TEXT, "operator": {"enum": ["In", "NotIn", "Exists", "DoesNotExist"]}, "values": items(TEXT)},
                "key",
                "operator",
            )
        ),
    }
)

POD_MONITOR = table(
    {
        "selector": SELECTOR,
        "namespaceSelector": table({"any": {"const": True}}),
        "podMetricsEndpoints": items(
            table({"port": TEXT, "path": TEXT, "interval": DURATION, "honorLabels": {"const": True}}, "port")
        ),
    },
    "selector",
    "podMetricsEndpoints",
)

SPECS: dict[tuple[str, str], Schema] = {
    ("monitoring.coreos.com/v1", "PodMonitor"): POD_MONITOR,
    ("azmonitoring.coreos.com/v1", "PodMonitor"): POD_MONITOR,
    ("monitoring.coreos.com/v1", "PrometheusRule"): table(
        {
            "groups": items(
                table(
                    {
                        "name": TEXT,
                        "interval": DURATION,
                        "rules": items(
                            table(
                                {"alert": TEXT, "record": TEXT, "expr": TEXT, "for": DURATION,
                                 "keep_firing_for": DURATION, "labels": TEXTS, "annotations": TEXTS},
                                "expr",
                            )
                        ),
                    },
                    "name", "rules",
                )
            )
        },
        "groups",
    ),
    ("external-secrets.io/v1", "ExternalSecret"): table(
        {
            "refreshInterval": DURATION,
            "secretStoreRef": table({"kind": {"enum": ["SecretStore", "ClusterSecretStore"]}, "name": TEXT}, "name"),
            "target": table({"name": TEXT, "creationPolicy": {"enum": ["Owner", "Orphan", "Merge", "None"]}}, "name"),
            "data": items(
                table({"secretKey": TEXT, "remoteRef": table({"key": TEXT}, "key")}, "secretKey", "remoteRef")
            ),
        },
        "secretStoreRef",
        "target",
    ),
    ("secrets-store.csi.x-k8s.io/v1", "SecretProviderClass"): table(
        {
            "provider": {"const": "azure"},
            "parameters": table({"clientID": TEXT, "tenantId": TEXT, "keyvaultName": TEXT, "objects": TEXT},
                                "tenantId", "keyvaultName", "objects"),
            "secretObjects": items(
                table(
                    {"secretName": TEXT, "type": TEXT,
                     "data": items(table({"objectName": TEXT, "key": TEXT}, "objectName", "key"))},
                    "secretName", "type", "data",
                )
            ),
        },
        "provider", "parameters",
    ),
    ("cert-manager.io/v1", "Issuer"): table({"selfSigned": table({})}, "selfSigned"),
    ("cert-manager.io/v1", "Certificate"): table(
        {
            "secretName": TEXT,
            "duration": DURATION,
            "renewBefore": DURATION,
            "privateKey": table({"algorithm": {"enum": ["RSA", "ECDSA", "Ed25519"]}, "size": {"type": "integer"},
                                 "rotationPolicy": {"enum": ["Always", "Never"]}}),
            "dnsNames": items(TEXT),
            "issuerRef": table({"kind": {"enum": ["Issuer", "ClusterIssuer"]}, "name": TEXT}, "name"),
        },
        "secretName", "issuerRef",
    ),
}  # fmt: skip
"""The schema of ``spec``, by ``apiVersion`` and kind."""

METADATA = table({"name": TEXT, "namespace": TEXT, "labels": TEXTS, "annotations": TEXTS}, "name", "namespace")


def schema_of(version: str, kind: str) -> Schema | None:
    """The schema of a whole custom resource; None for a kind that is built in."""
    spec = SPECS.get((version, kind))
    if spec is None:
        return None
    whole = {"apiVersion": {"const": version}, "kind": {"const": kind}, "metadata": METADATA, "spec": spec}
    return table(whole, *whole)
