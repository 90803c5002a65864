"""
Which proxy, if any, a call to an AI service goes through.

The rule: one pure function of a destination, the rule and the environment. The sidecar is never its own proxy, and a
call that stays on this machine uses no proxy unless the configuration names one.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from ipaddress import ip_address, ip_network
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit

from msgspec import Struct

PORTS = {"http": 80, "https": 443}


class Egress(Struct, frozen=True):
    """
    The way out for one destination.

    *proxy* is ``scheme://host:port`` without credentials, ``""`` for a direct connection; *authorization* the value of
    its ``Proxy-Authorization``, ``""`` for none; *reason* explains the choice.
    """

    proxy: str = ""
    authorization: str = ""
    reason: str = ""

    def __repr__(self) -> str:
        return f"<Egress {self.proxy or 'direct'}: {self.reason}>"


def choose(url: str, *, proxy: str, environ: Mapping[str, str], own: Callable[[str, int], bool]) -> Egress:
    """
    The way to *url* (``scheme://host[:port]…``).

    *proxy* is ``environment``, ``none`` or a proxy's URL. A URL is used for every destination. The environment's
    variables are read as curl reads them: ``https_proxy`` or ``http_proxy`` by the destination's scheme, then
    ``all_proxy``, except for what ``no_proxy`` names; lower case before upper case. *own* says whether an address is
    one of our listeners: such a proxy is ignored, because the call would come back to us. Raises ``ValueError`` for a
    *url* that cannot be read.
    """
    if proxy == "none":
        return Egress(reason="the configuration wants no proxy")
    if proxy != "environment":
        return _through(proxy, "the configuration", own)
    destination = urlsplit(url)
    host = destination.hostname or ""
    port = destination.port or PORTS.get(destination.scheme, 0)
    if is_loopback(host):
        return Egress(reason="the destination is this machine")
    for name in (f"{destination.scheme}_proxy", "all_proxy"):
        value = _variable(environ, name)
        if not value:
            continue
        if excluded(host, port, _variable(environ, "no_proxy")):
            return Egress(reason="no_proxy names the destination")
        return _through(value, name, own)
    return Egress(reason="the environment names no proxy")


def excluded(host: str, port: int, no_proxy: str) -> bool:
    """
    Whether *no_proxy* names this destination.

    Its entries are separated by commas or blanks: ``*`` for all; a domain, for itself and all below it, with or
    without a leading dot or ``*.``; an address; a CIDR block; each but the block with an optional ``:port``.
    """
    return any(_names(entry, host.lower().rstrip("."), port) for entry in no_proxy.replace(",", " ").split())


def is_loopback(host: str) -> bool:
    """Whether the spelling of *host*, a name or an address without brackets, means this machine."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def _names(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    if "/" in entry:
        try:
            return ip_address(host) in ip_network(entry, strict=False)
        except ValueError:
            return False
    name, wanted = _split(entry.lower())
    if wanted and wanted != str(port):
        return False
    try:
        return ip_address(name) == ip_address(host)
    except ValueError:
        domain = name.removeprefix("*").strip(".")
        return bool(domain) and (host == domain or host.endswith(f".{domain}"))


def _split(entry: str) -> tuple[str, str]:
    """Host and port of ``host``, ``host:port``, ``[v6]``, ``[v6]:port`` or a bare IPv6 address."""
    if entry.startswith("["):
        host, _, rest = entry[1:].partition("]")
        return host, rest.removeprefix(":")
    if entry.count(":") == 1:
        host, _, port = entry.partition(":")
        return host, port
    return entry, ""


def _variable(environ: Mapping[str, str], name: str) -> str:
    return (environ.get(name) or environ.get(name.upper()) or "").strip()


def _through(value: str, source: str, own: Callable[[str, int], bool]) -> Egress:
    """The proxy that *source* names, unless it cannot be used; the reason never repeats its credentials."""
    try:
        proxy = urlsplit(value if "://" in value else f"http://{value}")
        host, port = proxy.hostname, proxy.port or PORTS.get(proxy.scheme, 0)
    except ValueError:
        return Egress(reason=f"the proxy of {source} is ignored: it is no URL")
    if proxy.scheme not in PORTS:
        return Egress(reason=f"the proxy of {source} is ignored: {proxy.scheme} proxies are not supported")
    if not host:
        return Egress(reason=f"the proxy of {source} is ignored: it names no host")
    if own(host, port):
        return Egress(reason=f"the proxy of {source} is ignored: {host}:{port} is this sidecar itself")
    bracketed = f"[{host}]" if ":" in host else host
    return Egress(f"{proxy.scheme}://{bracketed}:{port}", _basic(proxy), f"the proxy of {source}")


def _basic(proxy: SplitResult) -> str:
    """``Basic`` credentials (RFC 7617) of a proxy's URL, ``""`` where it has none."""
    if proxy.username is None:
        return ""
    credentials = unquote_to_bytes(proxy.username) + b":" + unquote_to_bytes(proxy.password or "")
    return "Basic " + b64encode(credentials).decode("ascii")
