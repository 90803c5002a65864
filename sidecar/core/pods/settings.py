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

from sidecar.core.pods.services import Reachable, reachable

__all__ = [
    "CONTAINER", "DEFAULT_MEMORY", "DOMAIN", "INJECT", "LEAST_CPU", "NATIVE_SINCE", "NEWEST", "NO_PROXY", "PORTS",
    "REASON", "SKIP", "STATUS", "Injection", "Reachable", "amount", "fitting", "reachable", "started_by", "tuned",
    "version_of",
]  # fmt: skip

DOMAIN = "ai-sidecar.dev/"
"""What the names of our labels and annotations begin with."""

INJECT = DOMAIN + "inject"
STATUS = DOMAIN + "status"
NO_PROXY = DOMAIN + "no-proxy"
SKIP = DOMAIN + "skip-containers"
REASON = DOMAIN + "not-injected"
"""The annotation that says why a pod was not injected."""

CONTAINER = "ai-sidecar"
"""The name of our container, ConfigMap and Secret."""

NATIVE_SINCE = (1, 29)
"""The version of Kubernetes from which init containers with ``restartPolicy: Always`` are on by default."""

ARCHITECTURES = frozenset({"amd64", "arm64"})
"""What our image is built for."""

NEWEST = (1, 34)
"""The version that is assumed where none is told."""

PORTS = (7400, 7490, 7491)
"""The ports of calls, admin and health: see ``core/rules``."""

DEFAULT_MEMORY = "16Mi"
"""How much the memory tier may hold where neither an annotation nor the ConfigMap says it."""

_CPU = re.compile(r"[0-9]{1,4}(?:\.[0-9]{1,3})?\Z|[0-9]{1,6}m\Z")
_BYTES = re.compile(r"[0-9]{1,9}(Ki|Mi|Gi)\Z")
_QUANTITY = re.compile(r"([0-9.]+)(m|k|M|G|T|Ki|Mi|Gi|Ti)?\Z")
_UNITS = {
    "m": 0.001, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12,
    "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40,
}  # fmt: skip
_VERSION = re.compile(r"v?([0-9]+)\.([0-9]+)")


@dataclass(frozen=True, slots=True)
class Injection:
    """
    The settings. *image* by digest; *architectures* for which it is built, and those of the cluster's nodes, as far as
    known; *services* as in the ConfigMap; *namespace* is the webhook's own. Quantities as Kubernetes has them;
    *cpu_limit* ``""`` for none; *memory* ``""`` for what the ConfigMap says, or ``DEFAULT_MEMORY``. *identity*: regions
    or Redis use a workload identity, so pods need its label. *ports* are all that the sidecar opens, *health_port*
    among them. *drain* is ``limits.drain``, seconds.
    """

    image: str
    services: tuple[Reachable, ...]
    version: tuple[int, int] = NEWEST
    architectures: frozenset[str] = ARCHITECTURES
    node_architectures: frozenset[str] = frozenset()
    namespace: str = "ai-sidecar"
    revision: str = ""
    memory: str = ""
    cpu_request: str = "50m"
    memory_request: str = "96Mi"
    cpu_limit: str = ""
    memory_limit: str = "256Mi"
    identity: bool = False
    health_port: int = 7491
    drain: float = 25.0
    ports: tuple[int, ...] = PORTS


LEAST_CPU = 0.05
"""Cores with which a start takes some ten seconds."""

_TUNED = {
    "memory": ("memory", 4 << 20),
    "cpu-request": ("cpu_request", 0.001),
    "cpu-limit": ("cpu_limit", LEAST_CPU),
    "memory-request": ("memory_request", 1 << 20),
    "memory-limit": ("memory_limit", 96 << 20),
}
"""
Annotations that tune a quantity, without ``DOMAIN``: its name, and the least that is taken. With less than that, a
sidecar is killed or does not start in time, and a native one would hold the pod in Init.
"""

MOST_MEMORY = 256 << 30
"""Bytes of the memory tier that a configuration may have at most; with more, calls would only be forwarded."""

_DEFAULTS = {"memory": "the ConfigMap's, or 16Mi,", "cpu_limit": "none"}

_OTHERS = (NO_PROXY, SKIP)
_OURS = frozenset({STATUS, REASON})

LONGEST_LIST = 4096
"""Characters of an annotation that is a list: it is repeated for each container."""


def tuned(settings: Injection, annotations: Mapping[str, str]) -> tuple[Injection, list[str]]:
    """
    *settings* as the annotations of a pod tune them, and a warning for each that is wrong. No request is above its
    limit, for an API server refuses such a pod.
    """
    warnings = [_stranger(name) for name in annotations if name.startswith(DOMAIN) and not _is_known(name)]
    default_memory = settings.memory
    for word, (name, least) in _TUNED.items():
        value = annotations.get(DOMAIN + word)
        if value is None:
            continue
        default = getattr(settings, name) or _DEFAULTS.get(name, "")
        found = _number(value)
        if (_CPU if word.startswith("cpu") else _BYTES).match(value) is None:
            example = "100m or 0.5" if word.startswith("cpu") else "64Mi"
            warnings.append(f"{DOMAIN}{word}: {value!r} is not a quantity such as {example}; {default} is used")
        elif found < least:
            lowest = f"{least * 1000:g}m" if word.startswith("cpu") else f"{int(least) >> 20}Mi"
            warnings.append(f"{DOMAIN}{word}: {value} is too little, it needs {lowest}; {default} is used")
        elif name == "memory" and found > MOST_MEMORY:
            warnings.append(f"{DOMAIN}{word}: {value} is more than a cache can have; {default} is used")
        else:
            settings = _with(settings, name, value)
    for what in ("cpu", "memory"):
        request, limit = getattr(settings, f"{what}_request"), getattr(settings, f"{what}_limit")
        if limit and _number(request) > _number(limit):
            warnings.append(f"{DOMAIN}{what}-request: {request} is above the limit; {limit} is used")
            settings = _with(settings, f"{what}_request", limit)
    if 2 * _number(settings.memory or "0") > _number(settings.memory_limit):
        warnings.append(
            f"{DOMAIN}memory: {settings.memory} is above half of the memory limit; "
            f"{default_memory or _DEFAULTS['memory']} is used"
        )
        settings = _with(settings, "memory", default_memory)
    return settings, warnings


def fitting(annotations: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """*annotations* without those lists that are too long, and a warning for each of these."""
    long = [name for name in _OTHERS if len(annotations.get(name, "")) > LONGEST_LIST]
    warnings = [f"{name}: is longer than {LONGEST_LIST} characters, and not used" for name in long]
    return {name: text for name, text in annotations.items() if name not in long}, warnings


def amount(quantity: Any) -> float | str:
    """A quantity of Kubernetes in cores or bytes; one that cannot be read as it stands."""
    found = _QUANTITY.match(str(quantity))
    try:
        return str(quantity) if found is None else float(found[1]) * _UNITS.get(found[2], 1)
    except ValueError:
        return str(quantity)


def started_by(request: str) -> str:
    """A CPU limit for a request: at least so much that a start is not held up."""
    return request if _number(request) >= LEAST_CPU else f"{int(LEAST_CPU * 1000)}m"


def _number(text: str) -> float:
    """A quantity that has been checked."""
    found = amount(text)
    return 0.0 if isinstance(found, str) else found


def _is_known(name: str) -> bool:
    return name in _OURS or name in _OTHERS or name.removeprefix(DOMAIN) in _TUNED


def _stranger(name: str) -> str:
    if name == INJECT:
        return f"{name} is a label, and does nothing as an annotation"
    words = sorted([*_TUNED, *(each.removeprefix(DOMAIN) for each in _OTHERS)])
    return f"{name}: no such annotation; after {DOMAIN} there are {', '.join(words)}"


def _with(settings: Injection, name: str, value: Any) -> Injection:
    change: dict[str, Any] = {name: value}
    return replace(settings, **change)


def version_of(text: str) -> tuple[int, int] | None:
    """``v1.29.3-eks`` as (1, 29); None for what is no version."""
    found = _VERSION.match(text)
    return None if found is None else (int(found[1]), int(found[2]))
