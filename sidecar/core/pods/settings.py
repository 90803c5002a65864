"""
What an injection is made of: the image, the services, the defaults of a cluster.

The rule: only values. An annotation of a pod may tune what stands here; a wrong one is a warning, and the default
holds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sidecar.core.rules import Rules, host_of

DOMAIN = "ai-sidecar.dev/"
"""What the names of our labels and annotations begin with."""

INJECT = DOMAIN + "inject"
STATUS = DOMAIN + "status"
NO_PROXY = DOMAIN + "no-proxy"
SKIP = DOMAIN + "skip-containers"

CONTAINER = "ai-sidecar"
"""The name of our container, ConfigMap and Secret."""

NATIVE_SINCE = (1, 29)
"""The version of Kubernetes from which init containers with ``restartPolicy: Always`` are on by default."""

NEWEST = (1, 34)
"""The version that is assumed where none is told."""

PORTS = (7400, 7490, 7491)
"""The ports of calls, admin and health: see ``core/rules``."""

_QUANTITY = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?)(?:m|k|Ki|M|Mi|G|Gi)?\Z")
_VERSION = re.compile(r"v?([0-9]+)\.([0-9]+)")


@dataclass(frozen=True, slots=True)
class Reachable:
    """
    A service as applications reach it: *base* is its base URL on loopback, *hosts* are those of its regions. *resource*
    tells that the first label of the host is a resource, which the base URL goes on with; *suffixes* are then the rest
    of the host.
    """

    name: str
    base: str
    hosts: frozenset[str] = frozenset()
    suffixes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Injection:
    """
    The settings. *image* by digest; *architectures* for which it is built; *services* as in the ConfigMap; *namespace*
    is the webhook's own. Quantities as Kubernetes has them; *cpu_limit* ``""`` for none. *identity*: regions use a
    workload identity, so pods need its label.
    """

    image: str
    services: tuple[Reachable, ...]
    version: tuple[int, int] = NEWEST
    architectures: frozenset[str] = frozenset({"amd64", "arm64"})
    namespace: str = "ai-sidecar"
    revision: str = ""
    memory: str = "16Mi"
    cpu_request: str = "50m"
    memory_request: str = "96Mi"
    cpu_limit: str = ""
    memory_limit: str = "256Mi"
    identity: bool = False
    ports: tuple[int, ...] = PORTS


_TUNED = {
    "memory": "memory",
    "cpu-request": "cpu_request",
    "cpu-limit": "cpu_limit",
    "memory-request": "memory_request",
    "memory-limit": "memory_limit",
}
"""Annotations that tune a quantity, without ``DOMAIN``."""


def tuned(settings: Injection, annotations: Mapping[str, str]) -> tuple[Injection, list[str]]:
    """*settings* as the annotations of a pod tune them, and a warning for each that is wrong."""
    warnings = []
    chosen: dict[str, Any] = {}
    for word, name in _TUNED.items():
        value = annotations.get(DOMAIN + word)
        if value is None:
            continue
        if _QUANTITY.match(value):
            chosen[name] = value
        else:
            default = getattr(settings, name) or "none"
            warnings.append(f"{DOMAIN}{word}: {value!r} is not a quantity such as 100m or 64Mi; {default} is used")
    return replace(settings, **chosen), warnings


def reachable(rules: Rules) -> tuple[Reachable, ...]:
    """The services of a configuration, as applications in its pod reach them."""
    found = []
    for service in rules.services:
        port = service.port or rules.listen.port
        base = f"http://127.0.0.1:{port}{'' if service.port else service.path}"
        hosts = [host_of(region.url) for region in service.regions]
        suffixes = tuple(host.removeprefix("{resource}") for host in hosts if host.startswith("{resource}"))
        plain = frozenset(host for host in hosts if not host.startswith("{resource}"))
        if service.port or service.path:
            found.append(Reachable(service.name, base, plain, suffixes))
    return tuple(found)


def version_of(text: str) -> tuple[int, int] | None:
    """``v1.29.3-eks`` as (1, 29); None for what is no version."""
    found = _VERSION.match(text)
    return None if found is None else (int(found[1]), int(found[2]))
