"""
The forms of single values: words, names, URLs.

The rule: a form reads the text that was written, and either gives the value or raises ``ValueError`` with the problem
and the remedy. A message does not repeat a text that may be a secret.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from sidecar.core.http.headers import CREDENTIALS, OURS, is_secretive
from sidecar.core.rules import Share
from sidecar.settings.problems import listed, nearest, shown
from sidecar.settings.quantities import OFF
from sidecar.settings.shapes import ValueForm

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")
_TAG = re.compile(r"[A-Za-z0-9_.:@/-]{1,64}\Z")  # as callers may send them in x-sidecar-tags
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}\Z")  # RFC 9110, 5.6.2
_HOST = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\Z")
_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)+\Z")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z-]{0,19} ?\Z")
_MODEL = re.compile(r"[!-~]{1,256}\Z")
_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]|\.(?!\.)){0,126}\Z")
_SCOPE = re.compile(r"[a-z]{1,10}://[A-Za-z0-9._/-]{1,200}/\.default\Z")
_CONNECTION = frozenset({"connection", "content-length", "host", "te", "transfer-encoding", "upgrade"})
_CLAIM = re.compile(r"[!-~]{1,128}\Z")
_NAMING = frozenset({"iss", "sub"})
_CREDENTIALS = frozenset({name.decode() for name in CREDENTIALS} | {"cookie", "proxy-authorization"})
_ON = frozenset({"on", "yes", "true"})
_NAMESPACE = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
_REDIS = re.compile(r"([A-Za-z+]{1,20})://([^/?#]*)((?:/[^?#]*)?)\Z")
_REDIS_SCHEMES = frozenset(
    {f"{scheme}{kind}" for scheme in ("redis", "rediss") for kind in ("", "+sentinel", "+cluster")}
)
_SERVER = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):([0-9]{1,5})\Z")
_DATABASE = re.compile(r"/(0|[1-9][0-9]{0,4})\Z")
_SENTINEL = re.compile(r"/[A-Za-z0-9._-]{1,64}(?:/(?:0|[1-9][0-9]{0,4}))?\Z")


def choice(values: Mapping[str, Any], *, what: str, later: frozenset[str] = frozenset()) -> ValueForm:
    """
    One of a few words, read as the value that it stands for.

    If ``off`` is one of them, the other spellings of a YAML 1.1 false mean it, too. Words in *later* belong to other
    versions of the program.
    """

    def read(text: str) -> Any:
        word = "off" if "off" in values and text.lower() in OFF else text
        if word in values:
            return values[word]
        if word in later:
            raise ValueError(f"the {what} {word} is not supported by this version; use one of {listed(values)}")
        meant = nearest(word, values)
        remedy = f"did you mean {meant}?" if meant else f"use one of {listed(values)}"
        raise ValueError(f"{shown(text)} is not a {what}; {remedy}")

    return ValueForm(" · ".join(f"`{word}`" for word in values), read)


def _name(text: str) -> str:
    if not _NAME.match(text):
        raise ValueError(f"{shown(text)} is not a name; use up to 63 letters, digits, dots, hyphens and underscores")
    return text


def _text(text: str) -> str:
    if not text or len(text) > 256 or not text.isprintable():
        raise ValueError(f"{shown(text)} is not usable; write 1 to 256 printable characters on one line")
    return text


def _tag(text: str) -> str:
    if not _TAG.match(text):
        raise ValueError(f"{shown(text)} is not a tag; use up to 64 letters, digits and any of _ . : @ / -")
    return text


def _model(text: str) -> str:
    if not _MODEL.match(text):
        raise ValueError(f"{shown(text)} is not the name of a model; write 1 to 256 visible ASCII characters")
    if set(text) & set("*?["):
        raise ValueError(f"{shown(text)} is a pattern; name one model, as callers name it")
    return text


def _deployment(text: str) -> str:
    if not _MODEL.match(text):
        raise ValueError(f"{shown(text)} is not the name of a deployment; write 1 to 256 visible ASCII characters")
    return text


def _id(text: str) -> str:
    """The message does not show the text, because people mix up secrets and ids."""
    if not _ID.match(text):
        raise ValueError("is not an id; use one such as 00000000-0000-0000-0000-000000000000, and no secret")
    return text


def _scope(text: str) -> str:
    if not _SCOPE.match(text):
        raise ValueError("is not a scope; write it as https://cognitiveservices.azure.com/.default")
    return text


def _file(text: str) -> str:
    if not text or "\n" in text:
        raise ValueError("is not the path of a file; write one path on one line")
    return text


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return _host(text)


def _host(text: str) -> str:
    if not _HOST.match(text):
        raise ValueError(f"{shown(text)} is not a host; give its name alone, without scheme, port, path or wildcard")
    return text.lower()


def _nameserver(text: str) -> str:
    found = _SERVER.match(text)
    try:
        address = ipaddress.ip_address(text.replace("%", " ") if found is None else found[1] or found[2])
    except ValueError:
        raise ValueError(f"{shown(text)} is not a name server; give its IP address, or ADDRESS:PORT") from None
    port = 53 if found is None else int(found[3])
    if not 0 < port < 65536:
        raise ValueError(f"{shown(text)} is not a name server; its port is from 1 to 65535")
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def _prefix(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError(f"{shown(text)} does not start with /; write {shown('/' + text)}")
    path = text.rstrip("/")
    if not _PREFIX.match(path) or {".", ".."} & set(path.split("/")):
        raise ValueError(f"{shown(text)} is not a path prefix; use a form such as /openai")
    if is_own(path):
        raise ValueError("/sidecar is the sidecar's own; choose another prefix")
    return path


def is_own(prefix: str) -> bool:
    """Whether the sidecar itself answers under a path prefix."""
    return prefix == "/sidecar" or prefix.startswith("/sidecar/")


def _pattern(text: str) -> str:
    if not text.startswith(("/", "*", "?", "[")):
        raise ValueError(f"{shown(text)} matches no path; start it with / or *")
    return _text(text)


def _header(text: str) -> str:
    if not _TOKEN.match(text):
        raise ValueError(f"{shown(text)} is not the name of a header; use letters, digits and hyphens")
    return text.lower()


def _matched_header(text: str) -> str:
    name = _header(text)
    if name in _CREDENTIALS:
        raise ValueError("carries a credential, which doesn't belong here; match another header, such as x-team")
    return name


def _counted_header(text: str) -> str:
    name = _header(text)
    if name in _CONNECTION or name.encode() in OURS:
        raise ValueError(f"{name} belongs to the connection or to the sidecar, and never counts; remove it")
    return name


def _ignored_header(text: str) -> str:
    name = _header(text)
    if name in _CREDENTIALS or is_secretive(name.encode()):
        raise ValueError(f"{name} carries a credential, which always counts; remove it")
    return name


def _claim(text: str) -> str:
    if not _CLAIM.match(text):
        raise ValueError(f"{shown(text)} is not the name of a claim; write 1 to 128 visible ASCII characters")
    if text in _NAMING:
        raise ValueError(f"{text} says who the caller is, so it always counts; remove it")
    return text


def _credential_header(text: str) -> str:
    name = _header(text)
    if name in _CONNECTION:
        raise ValueError(f"{name} belongs to the connection; name the header that carries the key")
    return name


def _scheme(text: str) -> str:
    if text and not _SCHEME.match(text):
        raise ValueError('looks like a secret; keep only the scheme, such as "Bearer ", and put the key into the file')
    if text and not text.endswith(" "):
        raise ValueError(f'has no space at its end; write "{text} " in quotes')
    return text


def _share(text: str) -> Share:
    if text in {"principal", "service"}:
        return Share(text)
    kind, _, name = text.partition(":")
    if kind != "header" or not _TOKEN.match(name):
        raise ValueError(f"{shown(text)} is not a way to share; use principal, service or header:NAME")
    return Share("header", name.lower())


def _url(text: str) -> str:
    if "@" in text:
        raise ValueError("holds a user or password; keep the URL bare and name a credential's file")
    try:
        parts = urlsplit(text)
        scheme, host, port = parts.scheme.lower(), parts.hostname or "", parts.port
    except ValueError:
        raise ValueError(f"{shown(text)} is not a URL; check its host and port") from None
    if scheme not in {"http", "https"}:
        raise ValueError(f"{shown(text)} is not an http URL; start it with https:// or http://")
    if "?" in text or "#" in text:
        raise ValueError("has a query or fragment; keep scheme, host and base path")
    if not _is_host(host.replace("{resource}", "resource")) or port == 0:
        raise ValueError(f"{shown(text)} is not a URL; check its host and port")
    if not re.fullmatch(r"[!-~]*", parts.path):
        raise ValueError(f"{shown(text)} has a base path with blanks or other than ASCII; percent-encode them")
    return f"{scheme}://{parts.netloc.rstrip(':')}{parts.path.rstrip('/')}"


def _is_host(text: str) -> bool:
    try:
        _address(text)
    except ValueError:
        return False
    return True


def _proxy(text: str) -> str:
    return text if text in {"environment", "none"} else _url(text)


def _switch(text: str) -> bool:
    word = text.lower()
    if word not in _ON | OFF:
        raise ValueError(f"{shown(text)} is neither true nor false; use one of them")
    return word in _ON


def _namespace(text: str) -> str:
    """No braces: they would decide a Cluster's slots. No colon: it ends the namespace in the name of a key."""
    if not _NAMESPACE.match(text):
        raise ValueError(f"{shown(text)} is not a namespace; use up to 64 letters, digits, dots, hyphens, underscores")
    return text


def _redis(text: str) -> str:
    """The message never shows the text, because any part of it may be a password."""
    if "@" in text:
        raise ValueError("holds a user or password; write them into mounted files, and name these in username_file "
                         "and password_file")  # fmt: skip
    found = _REDIS.match(text)
    if found is None:
        raise ValueError("is not the URL of a Redis; write it as redis://HOST:PORT/0, without query and fragment")
    scheme, path = found[1].lower(), "" if found[3] == "/" else found[3]
    if scheme not in _REDIS_SCHEMES:
        raise ValueError(f"{shown(found[1])} is not a scheme of a Redis; use one of {listed(_REDIS_SCHEMES)}")
    kind = scheme.partition("+")[2]
    hosts = found[2].lower().split(",")
    if not all(map(_is_redis_host, hosts)):
        raise ValueError("has a malformed host or port; write each as HOST or HOST:PORT, with a port from 1 to 65535")
    if len(hosts) > 1 and not kind:
        raise ValueError("names several hosts; name one, or use a scheme with +sentinel or +cluster")
    if kind == "sentinel" and not _SENTINEL.match(path):
        raise ValueError("does not name what the Sentinels watch; end it with /SERVICE or /SERVICE/DATABASE")
    if kind == "cluster" and path:
        raise ValueError("names a database, and a cluster has none; end it after the hosts")
    if not kind and path and not _DATABASE.match(path):
        raise ValueError("has a path that is not the number of a database; end it with /0, or after the port")
    return f"{scheme}://{','.join(hosts)}{path}"


def _is_redis_host(text: str) -> bool:
    try:
        parts = urlsplit(f"//{text}")
        return _is_host(parts.hostname or "") and parts.port != 0 and not text.endswith(":")
    except ValueError:
        return False


NAME = ValueForm("name", _name)
TEXT = ValueForm("text", _text)
TAG = ValueForm("tag", _tag)
MODEL = ValueForm("model name", _model)
DEPLOYMENT = ValueForm("deployment name", _deployment)
ID = ValueForm("id", _id)
SCOPE = ValueForm("URL that ends in `/.default`", _scope)
FILE = ValueForm("file path", _file, file=True)
ADDRESS = ValueForm("IP address or host name", _address)
HOST = ValueForm("host name", _host)
NAMESERVER = ValueForm("IP address, with or without a port", _nameserver)
PREFIX = ValueForm("path prefix", _prefix)
PATTERN = ValueForm("path pattern", _pattern)
MATCHED_HEADER = ValueForm("header name", _matched_header)
CREDENTIAL_HEADER = ValueForm("header name", _credential_header)
COUNTED_HEADER = ValueForm("header name", _counted_header)
IGNORED_HEADER = ValueForm("header name", _ignored_header)
CLAIM = ValueForm("name of a claim", _claim)
SCHEME = ValueForm("text", _scheme)
SHARE = ValueForm("`principal` · `service` · `header:NAME`", _share)
URL = ValueForm("URL", _url)
SWITCH = ValueForm("`true` · `false`", _switch)
HEDGE = ValueForm("`on` · `off`", _switch)
NAMESPACE = ValueForm("name", _namespace)
REDIS = ValueForm("URL of a Redis", _redis)
PROXY = ValueForm("`environment` · `none` · URL", _proxy)
