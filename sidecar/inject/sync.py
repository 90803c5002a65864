"""
Copies the ConfigMap of the sidecars into every namespace that is labelled for injection.

The rule: a Secret is never copied, and a ConfigMap that a team made itself is never touched: only one that bears our
label is replaced.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct

from sidecar.core.pods.settings import CONTAINER, DOMAIN
from sidecar.inject.api_server import NOT_FOUND, ApiServer, ApiServerError, ObjectMetadata

SYNCED = DOMAIN + "synced"
"""The label of a copy; its value is ``true``."""

CONFIG = DOMAIN + "config"
"""The label of a ConfigMap that the API server asks the webhook about; its value is ``true``."""


class ConfigMap(Struct, frozen=True, rename={"binary": "binaryData"}):
    """A ConfigMap."""

    metadata: ObjectMetadata
    data: Mapping[str, str] | None = None
    binary: Mapping[str, str] | None = None


class Synced(Struct, frozen=True):
    """What one round did: how many namespaces were *written*, those *without_secret*, and those that *failed*."""

    written: int
    without_secret: list[str]
    failed: list[str]


async def sync(api: ApiServer, namespaces: Iterable[str]) -> Synced:
    """Copy the ConfigMap to *namespaces*, and see which of them have no Secret. Raises ``ApiServerError``."""
    source = await _config_map(api, api.namespace)
    written, without_secret, failed = 0, list[str](), list[str]()
    for name in namespaces:
        try:
            written += source is not None and await _copy(api, source, name)
            if not await _has_secret(api, name):
                without_secret.append(name)
        except ApiServerError as error:
            if error.status == 0:  # the next one cannot be asked for either
                raise
            failed.append(f"{name}: {error}")
    return Synced(written, without_secret, failed)


async def _copy(api: ApiServer, source: ConfigMap, namespace: str) -> bool:
    present = await _config_map(api, namespace)
    wanted = copied(source, present, namespace)
    if wanted is None:
        return False
    if present is None:
        await api.create(f"/api/v1/namespaces/{namespace}/configmaps", wanted)
    else:
        await api.replace(f"/api/v1/namespaces/{namespace}/configmaps/{CONTAINER}", wanted)
    return True


def copied(source: ConfigMap, present: ConfigMap | None, namespace: str) -> Mapping[str, Any] | None:
    """The ConfigMap that *namespace* must have; None if the one that is *present* stays."""
    version = {}
    if present is not None:
        if (present.metadata.labels or {}).get(SYNCED) != "true":
            return None
        if (present.data or {}, present.binary or {}) == (source.data or {}, source.binary or {}):
            return None
        version = {"resourceVersion": present.metadata.version}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": CONTAINER,
            "namespace": namespace,
            "labels": {SYNCED: "true", CONFIG: "true"},
            **version,
        },
        "data": source.data or {},
        "binaryData": source.binary or {},
    }


async def _config_map(api: ApiServer, namespace: str) -> ConfigMap | None:
    try:
        return await api.get(f"/api/v1/namespaces/{namespace}/configmaps/{CONTAINER}", ConfigMap)
    except ApiServerError as error:
        if error.status == NOT_FOUND:
            return None
        raise


async def _has_secret(api: ApiServer, namespace: str) -> bool:
    """Whether the Secret is there. Its metadata is asked for, and not what it holds."""
    try:
        await api.metadata(f"/api/v1/namespaces/{namespace}/secrets/{CONTAINER}")
    except ApiServerError as error:
        if error.status == NOT_FOUND:
            return False
        raise
    return True
