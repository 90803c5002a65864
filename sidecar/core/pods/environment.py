"""
How a container's environment sends its calls to the sidecar.

The rule: a variable is changed only if its value is literal and known to be a service's base URL. What somebody else
may supply (``envFrom``, ``valueFrom``) is left alone, and said. Every change can be taken back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct, field

from sidecar.core.pods.settings import NO_PROXY, Reachable

Variable = Mapping[str, Any]

BASE_URLS = {"OPENAI_BASE_URL": ("openai", "/v1"), "ANTHROPIC_BASE_URL": ("anthropic", "")}
"""Variables that SDKs read their base URL from, the service, and what the SDK wants behind its base URL."""

DIRECT = ("127.0.0.1", "localhost", "::1", "169.254.169.254")
"""Addresses that no proxy may get: loopback, where the calls go in clear, and the machine's identity endpoint."""

AZURE = re.compile(r"AZURE_OPENAI_|OPENAI_API_VERSION\Z")
"""Variables that only Azure's clients read. Where one of them is, ``OPENAI_BASE_URL`` would be in the way."""

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
EXCEPTIONS = ("NO_PROXY", "no_proxy")

_EXPANDS = re.compile(r"\$\(")


class EnvironmentChange(Struct, frozen=True, omit_defaults=True):
    """
    What was done to one container: variables that were *set* and were not there, and the values that others had before
    they were *rewritten*. *bare*: it had no table of variables at all.
    """

    set: list[str] = field(default_factory=list)
    rewritten: dict[str, str] = field(default_factory=dict)
    bare: bool = False


class Redirected(Struct, frozen=True):
    """The variables of a container afterwards, what was done, and what people should know (*left*)."""

    variables: Sequence[Variable]
    change: EnvironmentChange
    left: list[str]


def redirect(container: Mapping[str, Any], services: Sequence[Reachable], annotations: Mapping[str, str]) -> Redirected:
    """Send the calls of *container* to *services*."""
    variables = [dict(variable) for variable in container.get("env") or ()]
    change, left = EnvironmentChange(bare="env" not in container), list[str]()
    for variable in variables:
        value = variable.get("value")
        if isinstance(value, str) and (here := on_loopback(value, services)) is not None:
            change.rewritten[variable["name"]] = value
            variable["value"] = here
    _set_base_urls(container, variables, services, change, left)
    _except_loopback(container, variables, annotations, change, left)
    return Redirected(variables, change, left)


def restore(variables: Iterable[Variable], change: EnvironmentChange) -> list[Variable]:
    """The variables as they were before *change*."""
    return [
        {**variable, "value": change.rewritten[variable["name"]]} if variable["name"] in change.rewritten else variable
        for variable in variables
        if variable["name"] not in change.set
    ]


def on_loopback(value: str, services: Sequence[Reachable]) -> str | None:
    """The URL on loopback for *value*, the URL of a service; None if it is none, or made of other variables."""
    if _EXPANDS.search(value) or not value.startswith("https://"):
        return None
    try:
        parts = urlsplit(value)
        host = (parts.hostname or "").lower()
        plain = parts.port in {None, 443} and parts.username is None
    except ValueError:
        return None
    if not plain:
        return None
    rest = parts.path + (f"?{parts.query}" if parts.query else "")
    for service in services:
        if host in service.hosts:
            return service.base + rest
        for suffix in service.suffixes:
            name = host.removesuffix(suffix)
            if host.endswith(suffix) and name and "." not in name:
                return f"{service.base}/{name}{rest}"
    return None


def _set_base_urls(
    container: Mapping[str, Any],
    variables: list[dict[str, Any]],
    services: Sequence[Reachable],
    change: EnvironmentChange,
    left: list[str],
) -> None:
    names = {variable["name"] for variable in variables}
    bases = {service.name: service.base for service in services}
    for name, (service, behind) in BASE_URLS.items():
        if service not in bases or name in change.rewritten:
            continue
        where = f"{container.get('name', '')}: {name}"
        if name in names:
            known = next(variable for variable in variables if variable["name"] == name)
            if not str(known.get("value", "")).startswith("http://127.0.0.1"):
                left.append(f"{where} stays as it is: it does not name a configured service by a plain value")
        elif container.get("envFrom"):
            left.append(f"{where} is not set: envFrom may supply it; set it to {bases[service]}{behind} there")
        elif name == "OPENAI_BASE_URL" and (azure := _azure(variables, services)):
            left.append(f"{where} is not set: beside {azure} the Azure client of Node.js refuses it")
        else:
            variables.append({"name": name, "value": bases[service] + behind})
            change.set.append(name)


def _azure(variables: Sequence[Variable], services: Sequence[Reachable]) -> str | None:
    """The first variable which shows that the container calls Azure: by its name, or by the resource in its value."""
    resources = tuple(f"{service.base}/" for service in services if service.suffixes)
    for variable in variables:
        if AZURE.match(variable["name"]) or str(variable.get("value", "")).startswith(resources):
            return str(variable["name"])
    return None


def _except_loopback(
    container: Mapping[str, Any],
    variables: list[dict[str, Any]],
    annotations: Mapping[str, str],
    change: EnvironmentChange,
    left: list[str],
) -> None:
    """Keep calls to loopback away from an egress proxy: that proxy would get key and prompt in clear."""
    by_name = {variable["name"]: variable for variable in variables}
    for name in EXCEPTIONS:
        value = by_name.get(name, {}).get("value")
        if isinstance(value, str) and (extended := _extended(value)) != value:
            change.rewritten[name] = value
            by_name[name]["value"] = extended
    proxies = [by_name[name] for word in PROXIES for name in (word, word.lower()) if name in by_name]
    asked = annotations.get(NO_PROXY)
    literal = any("value" in variable for variable in proxies)
    missing = [name for name in EXCEPTIONS if name not in by_name]
    if missing and (literal or asked is not None):
        others = next((by_name[name]["value"] for name in EXCEPTIONS if "value" in by_name.get(name, {})), "")
        for name in missing:
            variables.append({"name": name, "value": _extended(asked or others)})
            change.set.append(name)
    elsewhere = container.get("envFrom") or any("valueFrom" in variable for variable in proxies)
    if asked is None and elsewhere and missing and not literal:
        left.append(
            f"{container.get('name', '')}: proxy variables may come from elsewhere; if they do, annotate the pod with "
            f"{NO_PROXY}, else SDKs send key and prompt to that proxy"
        )


def _extended(value: str) -> str:
    present = [part.strip() for part in value.split(",") if part.strip()]
    return ",".join([*present, *(address for address in DIRECT if address not in present)])
