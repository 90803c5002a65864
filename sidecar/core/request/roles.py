"""
What each header field of a request is to a service: a credential, part of the question, or noise.

The rule: no field is overlooked. At a vendor's own hosts the dialect's list says what counts. Anywhere else, a gateway
may choose provider, route or target by any field, so every field counts except documented noise. A field that looks
like a credential belongs to the caller's principal in both cases.
"""

from __future__ import annotations

import re
from enum import StrEnum

from sidecar.core.http.headers import LONGEST_NAME, SELECTORS, is_secretive, without_waiting
from sidecar.core.model import Fields, Pairs
from sidecar.core.request.noise import is_noise
from sidecar.core.rules import Service

MOST_NAMES = 2048
"""The most names whose role is remembered, none longer than ``LONGEST_NAME``, because callers choose them."""

TOKEN_START = b"eyJ"
"""How the header of a token begins, ``{"`` in Base64: a cheap first check of a value."""

_TOKEN = re.compile(rb"(?<![\w.-])eyJ[\w-]*(?:\.[\w-]*){2,4}(?![\w.-])", re.ASCII)
_PARAMETER = re.compile(rb';[ \t]*+([^ \t;="]++)[ \t]*+(?:=[ \t]*+("[^"]*+"|[^;" \t]*+)[ \t]*+)?+')
_PARAMETERS = re.compile(rb"(?:%b)*+" % _PARAMETER.pattern)
_LONGEST_PARAMETERS = 1024
_NOTHING_PREFERRED = (b"prefer", b"")
_SAME = frozenset({b"utf-8", b"utf8", b"us-ascii", b"ascii"})


class Role(StrEnum):
    """What a field is to a service."""

    CREDENTIAL = "credential"
    SCOPE = "scope"
    COUNTS = "counts"
    NOISE = "noise"


class Roles:
    """The roles of fields at *service*."""

    __slots__ = ("_asked_for", "_counted", "_credentials", "_ignored", "_known", "_scopes", "own")

    def __init__(self, service: Service) -> None:
        dialect = service.dialect
        self.own = service.own
        self._credentials = service.credential_headers.union(dialect.credentials)
        self._scopes = frozenset(dialect.scopes)
        self._counted = service.headers.count | (frozenset(dialect.counting) - service.headers.ignore)
        self._ignored = service.headers.ignore
        self._asked_for = service.headers.count
        self._known: dict[bytes, Role] = {}

    def __repr__(self) -> str:
        return f"<Roles at {'the vendor' if self.own else 'a gateway'}, {len(self._known)} names>"

    def of(self, name: bytes) -> Role:
        """The role of the field *name*, in lower case, whatever its value."""
        role = self._known.get(name)
        if role is None:
            role = self._judge(name)
            if len(self._known) < MOST_NAMES and len(name) <= LONGEST_NAME:
                self._known[name] = role
        return role

    def counted(self, fields: Fields, uncounted: frozenset[bytes] = frozenset()) -> Pairs:
        """
        The fields that are part of the question, with the part of their values that counts. *uncounted* do not, unless
        the configuration says so.
        """
        counted = [
            (name, counted_value(name, value))
            for name, value in fields.items()
            if self._counts(name)
            and (name not in uncounted or name in self._asked_for)
            and not (TOKEN_START in value and self._is_token(name, value))
        ]
        return tuple([pair for pair in counted if pair != _NOTHING_PREFERRED])

    def credentials(self, fields: Fields) -> Pairs:
        """The fields that carry a credential: by their name, or because a token stands in them."""
        return tuple(
            (name, value)
            for name, value in fields.items()
            if self.of(name) is Role.CREDENTIAL or (TOKEN_START in value and self._may_carry(name) and has_token(value))
        )

    def _counts(self, name: bytes) -> bool:
        role = self.of(name)
        return role is Role.COUNTS or (role is Role.CREDENTIAL and self._selects(name))

    def _is_token(self, name: bytes, value: bytes) -> bool:
        """Whether an unlisted field is nothing but a token: then it belongs to the caller, whatever its name."""
        return name not in self._counted and self._may_carry(name) and _TOKEN.fullmatch(bare(value)) is not None

    def _selects(self, name: bytes) -> bool:
        """Whether a credential also chooses which provider or model answers."""
        return name in self._counted or (not self.own and name in SELECTORS)

    def _may_carry(self, name: bytes) -> bool:
        """Whether a field may carry a token. Cookies count as a whole, and tracing fields hold no credential."""
        return name not in self._scopes and not is_noise(name)

    def _judge(self, name: bytes) -> Role:
        if name in self._credentials or is_secretive(name):
            return Role.CREDENTIAL
        if name in self._scopes:
            return Role.SCOPE
        if name in self._counted:
            return Role.COUNTS
        return Role.NOISE if self.own or name in self._ignored or is_noise(name) else Role.COUNTS


def has_token(value: bytes) -> bool:
    """Whether a token (RFC 7519), signed or encrypted, stands in a field's *value*."""
    return _TOKEN.search(value) is not None


def bare(value: bytes) -> bytes:
    """A credential without the scheme ``Bearer``."""
    scheme, _, rest = value.partition(b" ")
    return rest.strip() if scheme.lower() == b"bearer" and rest else value


def foreign_charset(content_type: bytes) -> bool:
    """Whether a body with this *content_type* may mean something else than the same bytes in UTF-8."""
    lower = content_type.lower()
    if b"charset" not in lower:
        return False
    said = [value.strip(b'"') for name, value in _PARAMETER.findall(lower) if name == b"charset"]
    return lower.count(b"charset") != len(said) or not _SAME.issuperset(said)


def counted_value(name: bytes, value: bytes) -> bytes:
    """
    The part of a field's value that counts. A boundary is new for each body; UTF-8 is the default anyway;
    ``respond-async`` speaks to the sidecar. The order of parameters has no meaning, unless one stands twice: parsers
    differ in which one they take.
    """
    if name == b"prefer":
        return without_waiting(value)
    if name != b"content-type":
        return value
    media, _, rest = value.partition(b";")
    rest = b";" + rest if rest else b""
    if len(rest) > _LONGEST_PARAMETERS or _PARAMETERS.fullmatch(rest) is None:
        return value
    pairs = [(parameter.lower(), said) for parameter, said in _PARAMETER.findall(rest)]
    said_once = dict(pairs)
    if len(said_once) < len(pairs):
        return value
    kept = sorted(b"%b=%b" % pair for pair in said_once.items() if pair[0] not in {b"boundary", b"charset"})
    return b";".join((media.strip().lower(), *kept))
