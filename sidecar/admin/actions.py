"""
The actions on a running sidecar, and their form in JSON.

The rule: a request is checked completely before anything is done; a message names the wrong member.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from msgspec import Struct, field, json

from sidecar.core.durations import as_duration, seconds_of
from sidecar.core.key.json_rule import UNREADABLE, fault
from sidecar.core.key.unsafe import Unsafe
from sidecar.core.region.orders import AUTO, FORMER
from sidecar.core.region.regions import Standing
from sidecar.core.rules import Mode
from sidecar.errors import Refused

KIB, MIB = 1024, 1024**2

SMALL_BYTES = 64 * KIB
"""The largest body of an action."""

REQUEST_BYTES = 16 * MIB
"""The largest request file for a purge: it may hold a document. In JSON it is a third larger."""

BODY_BYTES = REQUEST_BYTES * 4 // 3 + KIB
"""The largest body of all."""

SHORTEST, LONGEST = 1.0, 30 * 86400.0
"""The shortest and longest time of a mode or an order, in seconds."""

FleetProgress = Literal["done", "pending", "local"]
"""Whether the fleet knows: ``pending`` until Redis answers again, ``local`` if it concerns only this process."""

_ADDRESS = re.compile(r"[0-9a-f]{32}\Z")
_WORD = re.compile(r"[!-~]{1,256}\Z")


@dataclass(frozen=True, slots=True)
class PurgeRequest:
    """
    What to purge: *value* is a name for ``route``, ``tag`` and ``service``, 32 hexadecimal digits for ``key`` and
    ``partition``, the id for ``request-id``, ``""`` for ``all`` and for ``request``, which goes by the bytes of an
    HTTP *request*. *dry_run*: only count. *fleet*: the caller may act on the whole fleet.
    """

    scope: str
    value: str
    request: bytes
    dry_run: bool
    fleet: bool

    def audit_fields(self) -> Mapping[str, str | float]:
        """The fields of its audit line: never what the request holds."""
        value = "" if self.scope in {"key", "partition"} else self.value  # they might identify somebody
        return {"scope": self.scope, "value": value, "bytes": len(self.request), "dry_run": self.dry_run}


@dataclass(frozen=True, slots=True)
class PurgeResult:
    """*entries* that this process had, or dropped; *position* of the purge in the fleet's log, ``""`` for none."""

    entries: int
    position: str
    fleet: FleetProgress

    def audit_fields(self) -> Mapping[str, str | float]:
        """The fields of its audit line."""
        return {"entries": self.entries, "position": self.position, "fleet": self.fleet}


@dataclass(frozen=True, slots=True)
class ModeRequest:
    """The mode to change to, for *seconds*; None until it is changed again. *fleet*: as in a purge."""

    mode: Mode
    seconds: float | None
    fleet: bool

    def audit_fields(self) -> Mapping[str, str | float]:
        """The fields of its audit line."""
        return {"mode": self.mode.value} | ({} if self.seconds is None else {"seconds": self.seconds})


@dataclass(frozen=True, slots=True)
class ModeResult:
    """The *mode* in force, and for how many more *seconds*; None if it has no end."""

    mode: Mode
    seconds: float | None
    fleet: FleetProgress

    def audit_fields(self) -> Mapping[str, str | float]:
        """The fields of its audit line."""
        return {"fleet": self.fleet}


@dataclass(frozen=True, slots=True)
class RegionRequest:
    """
    What to do about the *region* of a *service*: ``stop`` (no calls go there), ``force`` (calls go there whatever
    happens), or ``auto`` (the breaker decides again). *seconds* as in a mode, and *fleet* as in a purge.
    """

    service: str
    region: str
    action: str
    seconds: float | None
    fleet: bool

    def audit_fields(self) -> Mapping[str, str | float]:
        """The fields of its audit line."""
        lasting = {} if self.seconds is None else {"seconds": self.seconds}
        return {"service": self.service, "region": self.region, "action": self.action} | lasting


@dataclass(frozen=True, slots=True)
class RegionResult:
    """
    How the region stands now, in each resource of its service; *fleet*: who knows of the order; *why* Redis refused it,
    with the remedy, ``""`` if it did not.
    """

    regions: Sequence[Standing]
    fleet: FleetProgress
    why: str = ""

    def audit_fields(self) -> Mapping[str, str | float]:
        """The fields of its audit line."""
        return {"fleet": self.fleet} | ({"why": self.why} if self.why else {})


@dataclass(frozen=True, slots=True)
class ReloadRequest:
    """Read the configuration now, in this process."""

    def audit_fields(self) -> Mapping[str, str | float]:
        """The fields of its audit line."""
        return {}


@dataclass(frozen=True, slots=True)
class ReloadResult:
    """
    The *revision* in use now; what has changed, in one line; what that means for stored answers, by route; the keys
    that wait for a restart; and what to look at in the configuration.
    """

    revision: str
    changes: str
    effects: Sequence[str]
    needs_restart: Sequence[str]
    warnings: Sequence[str]

    def audit_fields(self) -> Mapping[str, str | float]:
        """The fields of its audit line."""
        return {"revision": self.revision}


class _Purge(Struct, forbid_unknown_fields=True):
    scope: Literal["route", "tag", "service", "key", "request", "request-id", "partition", "all"]
    value: str = ""
    dry_run: bool = False


class _Mode(Struct, forbid_unknown_fields=True):
    mode: Mode
    lasting: str | None = field(default=None, name="for")


class _Region(Struct, forbid_unknown_fields=True):
    service: str
    region: str
    action: Literal["stop", "force", "auto", "open", "close"]
    lasting: str | None = field(default=None, name="for")


class _Erasure(_Purge, forbid_unknown_fields=True):
    wait: str | None = None


_PURGE, _MODE, _REGION = json.Decoder(_Purge), json.Decoder(_Mode), json.Decoder(_Region)
_ERASURE = json.Decoder(_Erasure)

_NO_JSON = frozenset({Unsafe.INVALID_UTF8, Unsafe.NESTING, Unsafe.INVALID_JSON, Unsafe.LONE_SURROGATE})

ActionBody = TypeVar("ActionBody", _Purge, _Mode, _Region, _Erasure)


def roughly(seconds: float) -> str:
    """A duration for people, in its largest units: ``2d 3h``, ``1h 30m``, ``1m 30s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24) if hours >= 48 else (0, hours)
    parts = ((days, "d"), (hours, "h"), (minutes if not days else 0, "m"), (rest if not days + hours else 0, "s"))
    return " ".join(f"{count}{unit}" for count, unit in parts if count) or "0s"


def purge_request(body: bytes, *, fleet: bool) -> PurgeRequest:
    """``{"scope": …, "value": …, "dry_run": …}``; the value of ``request`` is base64. Raises ``Refused``."""
    return _purge(_read(_PURGE, body), len(body), fleet=fleet)


def read_erasure(body: bytes, *, fleet: bool) -> tuple[PurgeRequest, str | None]:
    """The same with a member ``wait``, which is returned as it was written. Raises ``Refused``."""
    said = _read(_ERASURE, body)
    return _purge(said, len(body), fleet=fleet), said.wait


def _purge(said: _Purge, size: int, *, fleet: bool) -> PurgeRequest:
    if said.scope == "request":
        return PurgeRequest(said.scope, "", _request(said.value), said.dry_run, fleet)
    if size > SMALL_BYTES:
        raise _too_large()
    return PurgeRequest(said.scope, _value(said.scope, said.value), b"", said.dry_run, fleet)


def mode_request(body: bytes, *, fleet: bool) -> ModeRequest:
    """``{"mode": …, "for": "30m"}``. Raises ``Refused``."""
    if len(body) > SMALL_BYTES:
        raise _too_large()
    said = _read(_MODE, body)
    return ModeRequest(said.mode, _seconds(said.lasting), fleet)


def region_request(body: bytes, *, fleet: bool) -> RegionRequest:
    """``{"service": …, "region": …, "action": …, "for": "30m"}``; ``auto`` has no end. Raises ``Refused``."""
    if len(body) > SMALL_BYTES:
        raise _too_large()
    said = _read(_REGION, body)
    for member, value in (("service", said.service), ("region", said.region)):
        if not _WORD.match(value):
            raise _wrong(f"the name of a {member} is 1 to 256 printable characters without blanks")
    if said.action == AUTO and said.lasting is not None:
        raise _wrong("auto takes an order back, so it has no end; leave `for` out")
    action = FORMER.get(said.action, said.action)
    return RegionRequest(said.service, said.region, action, _seconds(said.lasting), fleet)


def reload_request(body: bytes, *, fleet: bool) -> ReloadRequest:  # noqa: ARG001  always this process alone
    """``{}`` or nothing. Raises ``Refused``."""
    if body.strip() not in {b"", b"{}"}:
        raise _wrong("a reload takes nothing; send {}")
    return ReloadRequest()


def _read(decoder: json.Decoder[ActionBody], body: bytes) -> ActionBody:
    try:
        return decoder.decode(body)
    except UNREADABLE as error:
        unsafe = fault(body)
        if unsafe in _NO_JSON:
            raise Refused(400, "bad-json", "the body is not JSON") from None
        raise _wrong("the body is no object" if unsafe is Unsafe.NOT_AN_OBJECT else str(error)) from None


def _seconds(lasting: str | None) -> float | None:
    if lasting is None:
        return None
    seconds = seconds_of(lasting)
    if seconds is None or not SHORTEST <= seconds <= LONGEST:
        bounds = f"{as_duration(SHORTEST)} to {as_duration(LONGEST)}"
        raise _wrong(f"how long (`for`) is a duration from {bounds}, such as 30m or 12h")
    return seconds


def _request(value: str) -> bytes:
    try:
        request = base64.b64decode(value, validate=True)
    except ValueError:
        raise _wrong("the value of a request is not base64; send the bytes of an HTTP request in that form") from None
    if len(request) > REQUEST_BYTES:
        raise _too_large()
    if not request:
        raise _wrong("the value of a request is empty; send the bytes of an HTTP request, in base64")
    return request


def _value(scope: str, value: str) -> str:
    if scope == "all":
        if value:
            raise _wrong("all has no value; leave it out, or name the scope that it belongs to")
    elif scope in {"key", "partition"}:
        value = value.lower()
        if not _ADDRESS.match(value):
            raise _wrong(f"the value of a {scope} is 32 hexadecimal digits")
    elif not _WORD.match(value):
        raise _wrong(f"the value of a {scope} is 1 to 256 printable characters without blanks")
    return value


def _wrong(text: str) -> Refused:
    return Refused(400, "bad-request", text)


def _too_large() -> Refused:
    limits = f"{SMALL_BYTES // KIB} KiB, or {REQUEST_BYTES // MIB} MiB for the bytes of a request"
    return Refused(413, "too-large", f"this is more than an action takes: {limits}")
