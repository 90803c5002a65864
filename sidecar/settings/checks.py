"""
Finds problems between keys: names used twice, overlapping paths, hosts and ports, bounds that contradict each other.

The rule: each check looks only at values that could be read. Problems of the others have been reported already.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sidecar.admin.access import is_loopback
from sidecar.redis_link.address import locate
from sidecar.settings.build import RESOURCE, has_redis, listen, ways
from sidecar.settings.builtin import SERVICES
from sidecar.settings.forms import is_own
from sidecar.settings.memory_sizes import is_file, oversized
from sidecar.settings.problems import Path, listed, nearest, shown
from sidecar.settings.reader import ParsedSettings
from sidecar.settings.region_checks import check_regions

_WILDCARDS = frozenset({"0.0.0.0", "::"})  # noqa: S104  compared with, not bound


def check(reading: ParsedSettings) -> None:
    """Add the problems between keys to the reading's problems."""
    _services(reading)
    _prefixes(reading)
    for verdicts in (_ways, _regions, _tokens, _routes, _ports, _redis, _exposure, _control):
        for path, text in verdicts(reading.values):
            reading.blame(path, text)
    _memory(reading)
    check_regions(reading)


def _services(reading: ParsedSettings) -> None:
    """A service that is not built in needs a dialect and regions: it has no defaults for them."""
    for name in reading.values.get("services", {}):
        for key, remedy in (("dialect", "give one"), ("regions", "give at least one")):
            if name not in SERVICES and ("services", name, key) not in reading.places:
                reading.blame(("services", name), f"has no {key}; {remedy}")


def _prefixes(reading: ParsedSettings) -> None:
    """A service without a path has its name as prefix, which must not be the sidecar's own. Its form checks a path."""
    for name, said in reading.values.get("services", {}).items():
        path: Path = ("services", name)
        if (*path, "path") not in reading.places and is_own(prefix := ways(name, said).path):
            reading.blame(path, f"has the prefix {prefix}, which is the sidecar's own; give it another path or name")


def _ways(values: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    """No two services may have the same path, host or port. A path may begin with another: the longest path wins."""
    services = values.get("services", {})
    taken: dict[tuple[str, object], str] = {}
    for name in [*services, *(name for name in SERVICES if name not in services)]:
        path, hosts, port = ways(name, services.get(name, {}))
        for key, sign in [("path", path), *(("hosts", host) for host in hosts), ("port", port)]:
            if not sign:
                continue
            other = taken.setdefault((key, sign), name)
            if other == name:
                continue
            if name in services:
                yield ("services", name, key), f"{sign} belongs to the service {other} already; choose another"
            else:
                text = f"{sign} belongs to the built-in service {name}; choose another, or call this service {name}"
                yield ("services", other, key), text


def _regions(values: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    for name, said in values.get("services", {}).items():
        regions = said.get("regions", [])
        path: Path = ("services", name, "regions")
        yield from _twice(regions, path)
        urls = [region.get("url", "") for region in regions]
        if any(RESOURCE in url for url in urls):
            for at, url in enumerate(urls):
                if url and RESOURCE not in url:
                    yield (*path, at, "url"), f"has no {RESOURCE} as its sisters have; name it in all urls or in none"


def _tokens(values: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    """To verify tokens, a service needs all three keys."""
    for name, said in values.get("services", {}).items():
        tokens = said.get("tokens", {})
        lacking = [key for key in ("issuer", "audience", "jwks_file") if key not in tokens]
        if 0 < len(lacking) < 3:
            text = f"has no {' and no '.join(lacking)}, without which no token can be verified; give all three, or none"
            yield ("services", name, "tokens"), text


def _routes(values: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    routes = values.get("routes", [])
    yield from _twice(routes, ("routes",))
    known = values.get("services", {}).keys() | SERVICES.keys()
    for at, said in enumerate(routes):
        service = said.get("match", {}).get("service")
        if service is not None and service not in known:
            meant = nearest(service, known)
            remedy = f"did you mean {meant}?" if meant else f"use one of {listed(known)}"
            yield ("routes", at, "match", "service"), f"there is no service {shown(service)}; {remedy}"


def _twice(items: list[dict[str, Any]], path: Path) -> Iterator[tuple[Path, str]]:
    seen: set[str] = set()
    for at, item in enumerate(items):
        name = item.get("name")
        if name in seen:
            yield (*path, at, "name"), f"{name} is the name of another one above; choose one of its own"
        elif name is not None:
            seen.add(name)


def _ports(values: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    """No two listeners may have the same port of the same address."""
    here = listen(values, "listen").host
    wanted: list[tuple[Path, str, int]] = []
    for name in ("listen", "health", "admin"):
        at = listen(values, name)
        wanted.append(((name, "port"), at.host, at.port))
    for name, said in values.get("services", {}).items():
        wanted.append((("services", name, "port"), here, said.get("port", 0)))
    for count, (path, host, port) in enumerate(wanted):
        for other, other_host, other_port in wanted[:count]:
            meet = host == other_host or host in _WILDCARDS or other_host in _WILDCARDS
            if port and port == other_port and meet and other[0] != path[0]:
                new, old = (path, other) if _says(values, path) or not _says(values, other) else (other, path)
                yield new, f"{port} is also the port of {old[0]}; choose another"


def _says(values: dict[str, Any], path: Path) -> bool:
    """Whether the value at *path* is configured, not a default."""
    return path[-1] in values.get(str(path[0]), {}) or path[0] == "services"


def _memory(reading: ParsedSettings) -> None:
    """The largest entry, which must fit in. Where the two were said by different people, ``cautions`` tells of it."""
    whole = oversized(reading)
    if whole and len({is_file(reading, key) for key in ("max_bytes", "max_entry_bytes")}) == 1:
        text = f"is more than max_bytes; use at most {whole}, or raise max_bytes"
        reading.blame(("cache", "memory", "max_entry_bytes"), text)


def _redis(values: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    if not has_redis(values):
        return
    said = values["cache"]["redis"]
    path: Path = ("cache", "redis")
    if "url" not in said:
        yield path, "has no url; give one, or leave the table empty"
    elif not said["url"].startswith("rediss"):
        for key in ("ca_file", "cert_file", "key_file"):
            if key in said:
                yield (*path, key), "is for TLS, and the url has none; start that with rediss, or remove the key"
    if "credential" in said:
        yield from _login(said)
    if "key_file" in said and "cert_file" not in said:
        yield (*path, "key_file"), "belongs to a certificate; name that in cert_file, or remove the key"


def _login(said: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    """A token is the password: it needs no other, and does not travel in clear."""
    path: Path = ("cache", "redis")
    for key in ("username_file", "password_file"):
        if key in said:
            yield (*path, key), "is of no use beside credential, whose token is the password; remove one of the two"
    if "url" not in said:
        return
    at = locate(said["url"])
    if not at.tls and not all(is_loopback(host) for host, _ in at.hosts):
        yield (*path, "url"), "a token would go there in clear; start it with rediss"


def _exposure(values: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    """With region credentials, the address must not be reachable by others: anybody who connects would use them."""
    host = listen(values, "listen").host
    if is_loopback(host):
        return
    for name, said in values.get("services", {}).items():
        for at, region in enumerate(said.get("regions", [])):
            if "credential" in region:
                text = f"would be lent to whoever reaches {host}; set listen.host to 127.0.0.1 or remove the credential"
                yield ("services", name, "regions", at, "credential"), text


def _control(values: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    """An admin address that others can reach needs a token."""
    host = listen(values, "admin").host
    if not is_loopback(host) and "token_file" not in values.get("admin", {}):
        text = f"lets whoever reaches {host} act on the sidecar; set admin.token_file, or admin.host to 127.0.0.1"
        yield ("admin", "host"), text
