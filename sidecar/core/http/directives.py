"""
What callers and services say about caching: ``Cache-Control`` and the fields that belong to it.

The rule: requests and answers go through one parser. If something is said twice, the more restrictive value counts, and
a value that cannot be read counts as the most restrictive one. Unknown directives are ignored; so is
``must-understand``, which would lift a ``no-store``.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import inf

from msgspec import Struct

from sidecar.core.durations import UNITS
from sidecar.core.http.headers import OURS, REPLAYED
from sidecar.core.model import MOST_TAGS, Fields

MOST_VARIED = 32
"""The most fields that ``Vary`` may name; an answer that names more counts as if it named all."""

LONGEST = 2.0**31
"""Seconds. Longer times count as this one (RFC 9111, 1.2.2)."""

_UNVARIED = OURS | {b"accept-encoding"}
"""Request fields that ``Vary`` may name without effect: no service gets them for a call that is looked up."""

_ASKING = frozenset({b"cache-control", b"pragma", b"x-sidecar-ttl", b"x-sidecar-tags"})
_SAYING = frozenset({b"cache-control", b"expires", b"vary", b"age"})
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?\Z")
_TAG = re.compile(r"[\w.:@/-]{1,64}\Z", re.ASCII)
_DIGITS = re.compile(r"[0-9]+\Z")


class Directives(Struct, frozen=True, gc=False):
    """
    What the caller asks of the cache (RFC 9111, 5.2.1, and ``x-sidecar-*``).

    *max_age*: the oldest answer that the caller accepts, seconds; *min_fresh*: for how much longer an answer must be
    fresh; *ttl*: how long its answer may be kept, and how old an answer that it gets may be. None where it says
    nothing. ``max-stale`` is not read: only the route says whether a stale answer may serve.
    """

    no_cache: bool = False
    no_store: bool = False
    only_if_cached: bool = False
    max_age: float | None = None
    ttl: float | None = None
    tags: tuple[str, ...] = ()
    min_fresh: float | None = None


NOTHING_ASKED = Directives()


class CacheDirectives(Struct, frozen=True, gc=False):
    """
    What an answer's head says about caching (RFC 9111, 5.2.2).

    *no_cache*: it must be validated before each use. *strict*: it never serves stale. *lifetime*: for how many seconds
    after its arrival it is fresh, with its *age* taken off; None where it says nothing. *vary*: the request fields, by
    lower-case name and sorted, on whose values it depends; ``*`` if it depends on more than fields.
    """

    no_store: bool = False
    private: bool = False
    no_cache: bool = False
    strict: bool = False
    lifetime: float | None = None
    age: float = 0.0
    vary: tuple[bytes, ...] = ()


NOTHING_SAID = CacheDirectives()


def read_directives(fields: Fields) -> Directives:
    """
    What the caller asks. A TTL that cannot be read is 0; a malformed tag is ignored. A call with more tags than an
    entry can have is neither looked up nor kept.
    """
    if _ASKING.isdisjoint(fields):
        return NOTHING_ASKED
    no_cache = no_store = only_if_cached = False
    max_age: float | None = None
    min_fresh: float | None = None
    control = fields.get(b"cache-control")
    for name, argument in parse(fields.get(b"pragma", b"") if control is None else control):
        if name == "no-cache":
            no_cache = True
        elif control is None:
            continue  # Pragma has no other directive (RFC 9111, 5.4)
        elif name == "no-store":
            no_store = True
        elif name == "only-if-cached":
            only_if_cached = True
        elif name == "max-age":
            max_age = _least(max_age, _seconds(argument, 0.0))
        elif name == "min-fresh":
            min_fresh = max(min_fresh or 0.0, _seconds(argument, inf))
    ttl: float | None = None
    if (asked := fields.get(b"x-sidecar-ttl")) is not None:
        found = _DURATION.match(asked.decode("latin-1").strip())
        ttl = float(found[1]) * UNITS[found[2] or "s"] if found else 0.0
    tags = _tags(fields)
    no_store |= tags is None
    return Directives(no_cache, no_store, only_if_cached, max_age, ttl, tags or (), min_fresh)


def _tags(fields: Fields) -> tuple[str, ...] | None:
    """The caller's tags; None if there are too many, because a purge by a missing tag would miss the answer."""
    said = fields.get(b"x-sidecar-tags", b"").decode("latin-1").split(",")
    tags = tuple(dict.fromkeys(tag for part in said if _TAG.match(tag := part.strip())))
    return tags if len(tags) <= MOST_TAGS else None


def read_said(fields: Fields, now: float) -> CacheDirectives:
    """What an answer says that arrives at *now*, seconds since the epoch."""
    if _SAYING.isdisjoint(fields):
        return NOTHING_SAID
    no_store = private = no_cache = strict = False
    max_age: float | None = None
    shared_max_age: float | None = None
    for name, argument in parse(fields.get(b"cache-control", b"")):
        if name == "no-store":
            no_store = True
        elif name == "private":
            private = True  # also where it names only fields: the more restrictive reading
        elif name == "no-cache":
            no_cache = no_cache or _is_seen(argument)
        elif name in {"must-revalidate", "proxy-revalidate"}:
            strict = True
        elif name == "max-age":
            max_age = _least(max_age, _seconds(argument, 0.0))
        elif name == "s-maxage":
            shared_max_age = _least(shared_max_age, _seconds(argument, 0.0))
    if shared_max_age is not None and not private:  # s-maxage is for shared caches, and `private` keeps it out of those
        max_age, strict = shared_max_age, True
    lifetime = max_age if max_age is not None else _until(fields, now)
    age = _age(fields)
    left = None if lifetime is None else max(lifetime - age, 0.0)
    return CacheDirectives(no_store, private, no_cache, strict, left, age, varied(fields))


def varied(fields: Fields) -> tuple[bytes, ...]:
    """The request fields on which an answer depends by its ``Vary``, as ``CacheDirectives`` has them."""
    value = fields.get(b"vary")
    if value is None:
        return ()
    names = {name for part in value.split(b",") if (name := part.strip().lower())} - _UNVARIED
    return (b"*",) if b"*" in names or len(names) > MOST_VARIED else tuple(sorted(names))


def parse(value: bytes) -> list[tuple[str, str | None]]:
    """
    The directives of a ``Cache-Control``: lower-case names, with their arguments out of their quotes, or None.

    Where a quote is not closed, none of the quotes count, so that nothing is hidden behind one.
    """
    text = value.decode("latin-1")
    parts = text.split(",") if '"' not in text else _split(text)
    found = []
    for part in parts:
        name, equals, argument = part.partition("=")
        if name := name.strip().lower():
            found.append((name, _unquoted(argument.strip()) if equals else None))
    return found


def _split(text: str) -> list[str]:
    """Split *text* at the commas outside quotes. One pass, so a header of 64 KiB does not block the event loop."""
    parts: list[str] = []
    start, quoted, escaped = 0, False, False
    for at, char in enumerate(text):
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = quoted
        elif char == '"':
            quoted = not quoted
        elif char == "," and not quoted:
            parts.append(text[start:at])
            start = at + 1
    parts.append(text[start:])
    return text.replace('"', "").split(",") if quoted else parts


def _unquoted(argument: str) -> str:
    return argument[1:-1] if len(argument) > 1 and argument[0] == argument[-1] == '"' else argument


def _seconds(argument: str | None, otherwise: float) -> float:
    """Delta-seconds (RFC 9111, 1.2.2); *otherwise* if *argument* cannot be read."""
    if argument is None or not _DIGITS.match(argument):
        return otherwise
    return min(float(argument.lstrip("0")[:12] or 0), LONGEST)


def _least(known: float | None, said: float) -> float:
    return said if known is None else min(known, said)


def _is_seen(argument: str | None) -> bool:
    """Whether ``no-cache`` concerns something that a stored answer shows; named fields are mostly not replayed."""
    if argument is None:
        return True
    names = {name.strip().lower().encode("latin-1") for name in argument.split(",")} - {b""}
    return not names or not names.isdisjoint(REPLAYED)


def _until(fields: Fields, now: float) -> float | None:
    """
    For how many seconds an answer is fresh by its ``Expires``, counted from its ``Date``, or from *now* if that is
    missing or cannot be read. A value that is no date counts as past (RFC 9111, 5.3).
    """
    if b"expires" not in fields:
        return None
    expires, date = _date(fields, b"expires"), _date(fields, b"date")
    return 0.0 if expires is None else max(expires - (now if date is None else date), 0.0)


def _date(fields: Fields, name: bytes) -> float | None:
    """An HTTP date in any of its three forms (RFC 9110, 5.6.7); None if the value is no date or several dates."""
    text = fields.get(name, b"").decode("latin-1").strip()
    if text.count(",") > 1:
        return None
    try:
        return _epoch(parsedate_to_datetime(text))
    except (ValueError, OverflowError, TypeError, IndexError):
        return None


def _epoch(date: datetime) -> float:
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


def _age(fields: Fields) -> float:
    """How old an answer is when it arrives: the first value counts; one that is no age is ignored (RFC 9111, 5.1)."""
    first, *_ = fields.get(b"age", b"").decode("latin-1").split(",")
    return _seconds(first.strip(), 0.0)
