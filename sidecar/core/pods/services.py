"""
The services of a configuration, as the applications of its pod reach them.

The rule: a URL names a service only if the sidecar would send the same call to the same place: scheme, port and base
path of a region count, not the host alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit

from sidecar.core.rules import Rules

RESOURCE = "{resource}"

_PORTS = {"http": 80, "https": 443}
_LOOPBACK = {"::1": "[::1]", "::": "127.0.0.1", "0.0.0.0": "127.0.0.1"}  # noqa: S104  compared with, not bound
_URL = re.compile(r"https?://[^\s\"'<>,;|\\)\]}]+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Reachable:
    """
    A service as applications reach it: *base* is its base URL on loopback, *urls* are those of its regions. Where one
    of these has ``{resource}`` as a part of its host, *base* goes on with the name of the resource. *setting* is the
    variable that SDKs read their base URL from, ``""`` for none, and *behind* what they want behind *base*. *azure*:
    it speaks Azure's form of an API, also where its regions are resources by name. *words*: what the names of variables
    have that mean it, and not another service at the same host.
    """

    name: str
    base: str
    urls: Sequence[str] = ()
    setting: str = ""
    behind: str = ""
    azure: bool = False
    words: tuple[str, ...] = ()

    def has(self, url: str) -> bool:
        """Whether calls to *url* arrive at the sidecar, for this service."""
        return url == self.base or url.startswith((f"{self.base}/", f"{self.base}?"))


class _Place(NamedTuple):
    """A URL, as far as it says where calls go. *rest* is the query, with its question mark."""

    scheme: str
    host: str
    port: int
    path: str
    rest: str


def reachable(rules: Rules) -> tuple[Reachable, ...]:
    """The services of *rules* that have a path or a port of their own."""
    found = []
    for service in rules.services:
        if not (service.port or service.path):
            continue
        host = _LOOPBACK.get(rules.listen.host, "127.0.0.1")
        base = f"http://{host}:{service.port or rules.listen.port}{'' if service.port else service.path}"
        urls = (*(region.url for region in service.regions), *(f"https://{host}" for host in service.hosts))
        known = service.name == service.dialect.name  # of two services that speak the same, the one of that name
        setting, behind = (service.dialect.setting, service.dialect.base) if known else ("", "")
        azure = service.dialect.resources is not None
        words = service.dialect.words
        found.append(Reachable(service.name, base, tuple(dict.fromkeys(urls)), setting, behind, azure, words))
    return tuple(found)


def on_loopback(value: str, services: Sequence[Reachable], name: str = "") -> str | None:
    """
    The URL on loopback for *value*, the URL of a service or something below it; None if it is none. The *name* of the
    variable tells which of several services at one URL is meant.
    """
    if (place := _place(value)) is None:
        return None
    best, here = (-1, -1, -1), None
    for service in services:
        named = int(any(word in name.upper() for word in service.words))
        for url in service.urls:
            if (base := _base(url)) is None or (resource := _resource(place, base)) is None:
                continue
            # the host by name beats any resource; a longer path a shorter
            fit = (int(not resource), len(base.path), named)
            if fit > best:
                rest = place.path.removeprefix(base.path) + place.rest
                best, here = fit, f"{service.base}{f'/{resource}' if resource else ''}{rest}"
    return here


def host_in(value: str) -> str:
    """The host of a URL that may be shown, without user, path or query; ``""`` if it is no URL."""
    place = _place(value)
    return "" if place is None else place.host


def urls_in(text: str) -> list[str]:
    """The URLs within a text."""
    return _URL.findall(text)


def _place(value: str) -> _Place | None:
    if "://" not in value:
        return None
    try:
        parts = urlsplit(value)
        host, port = parts.hostname, parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        return None
    if not port or not host or "@" in parts.netloc or parts.fragment:
        return None
    return _Place(parts.scheme, host, port, parts.path, f"?{parts.query}" if parts.query else "")


_base = lru_cache(maxsize=256)(_place)
"""The same for URLs of a configuration. Values of pods are not kept: they may be secrets."""


def _resource(place: _Place, base: _Place) -> str | None:
    """The resource that *place* names, ``""`` if *base* wants none; None if *place* is not below *base*."""
    if (place.scheme, place.port) != (base.scheme, base.port):
        return None
    if base.path and place.path != base.path and not place.path.startswith(f"{base.path}/"):
        return None
    before, marked, behind = base.host.partition(RESOURCE)
    if not marked:
        return "" if place.host == base.host else None
    name = place.host.removeprefix(before).removesuffix(behind)
    fits = place.host == f"{before}{name}{behind}" and re.fullmatch(r"[a-z0-9][a-z0-9-]*", name)
    return name if fits else None
