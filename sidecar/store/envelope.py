"""
The content of an envelope: an entry and its key as MessagePack.

The rule: a map from the numbers of ``_LAYOUT`` to values, all of them and no others. What is read is used only after
every value has a type and range that our entries can have. A change of the layout, or of a value's meaning, changes
``SCHEMA``, and an envelope with another ``SCHEMA`` is not read.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import StrEnum
from operator import itemgetter
from typing import Any

import msgpack

from sidecar.core.key.fingerprint import address
from sidecar.core.model import MOST_TAGS, Entry, Form, Key, Position, Usage

SCHEMA = 2

MOST_PAIRS = 256
MOST_VARIED = 32
LONGEST_TEXT = 4096
LONGEST_TIME = 1e10
"""Seconds: the year 2286, or a span of that length."""

_INTEGERS = 2**63
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")  # RFC 9110, 5.6.2
_FORBIDDEN = re.compile(rb"[\r\n\0]")  # RFC 9110, 5.5
_FORMS = frozenset(Form)


class EnvelopeFault(StrEnum):
    """
    Why an envelope was not opened. A closed set: it labels a metric.

    *format*: not an envelope, or cut short; *version*: one of another release; *secret*: sealed by a secret that is
    not, or no longer, in the file; *forged*: not sealed by that secret, not under this name, or damaged; *key*: the
    entry of another key; *size*: larger than this process keeps; *payload*: sealed by us, but not an entry.
    """

    FORMAT = "format"
    VERSION = "version"
    UNKNOWN = "secret"
    FORGED = "forged"
    KEY = "key"
    SIZE = "size"
    PAYLOAD = "payload"


def pack(key: Key, entry: Entry) -> bytes:
    """Write *key*'s proof and *entry*. A provider may report any number; impossible ones are brought into range."""
    usage = entry.usage
    values = (
        SCHEMA,
        key.proof,
        entry.status,
        entry.headers,
        entry.body,
        str(entry.form),
        entry.service,
        entry.route,
        entry.model,
        float(entry.at),
        float(entry.ttl),
        float(entry.stale_while_revalidate),
        float(entry.stale_if_error),
        [_counted(number) for number in (usage.prompt, usage.completion, usage.cached, usage.reasoning)],
        entry.region,
        float(entry.seconds),
        entry.tags,
        entry.partition,
        entry.position,
        entry.vary,
        entry.strict,
        float(entry.age),
        entry.target,
    )
    packed: bytes = msgpack.packb(dict(enumerate(values)), unicode_errors="surrogatepass")
    return packed


def unpack(packed: bytes | memoryview) -> tuple[Key, Entry] | EnvelopeFault:
    """Read what ``pack`` wrote."""
    try:
        fields = msgpack.unpackb(
            packed,
            strict_map_key=False,
            use_list=False,
            unicode_errors="surrogatepass",
            max_array_len=MOST_PAIRS,
            max_map_len=len(_LAYOUT),
        )
    except (ValueError, TypeError, msgpack.UnpackException):
        return EnvelopeFault.PAYLOAD
    if type(fields) is not dict or set(map(type, fields)) != {int} or type(fields.get(0)) is not int:
        return EnvelopeFault.PAYLOAD
    if fields[0] != SCHEMA:
        return EnvelopeFault.VERSION
    if fields.keys() != _NUMBERS:
        return EnvelopeFault.PAYLOAD
    values = _in_order(fields)
    for check, value in zip(_LAYOUT, values, strict=True):
        if not check(value):
            return EnvelopeFault.PAYLOAD
    (
        _, proof, status, headers, body, form, service, route, model, at, ttl, revalidate, error, usage, region,
        seconds, tags, partition, position, vary, strict, age, target,
    ) = values  # fmt: skip
    entry = Entry(
        status=status,
        headers=headers,
        body=body,
        form=Form(form),
        service=service,
        route=route,
        model=model,
        at=at,
        ttl=ttl,
        usage=Usage(*usage),
        stale_while_revalidate=revalidate,
        stale_if_error=error,
        region=region,
        seconds=seconds,
        tags=tags,
        partition=partition,
        position=Position(*position),
        vary=vary,
        strict=strict,
        age=age,
        target=target,
    )
    return Key(address(proof), proof), entry


def _counted(number: int) -> int:
    return min(max(number, 0), _INTEGERS - 1)


def _is(kind: type) -> Callable[[Any], bool]:
    return lambda value: type(value) is kind


def _sized(*sizes: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is bytes and len(value) in sizes


def _text(value: Any) -> bool:
    return type(value) is str and len(value) <= LONGEST_TEXT


def _time(value: Any) -> bool:
    return type(value) is float and 0 <= value <= LONGEST_TIME  # not so for a NaN


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _INTEGERS


def _status(value: Any) -> bool:
    return type(value) is int and 200 <= value <= 599


def _form(value: Any) -> bool:
    return type(value) is str and value in _FORMS


def _usage(value: Any) -> bool:
    return type(value) is tuple and len(value) == 4 and all(map(_count, value))


def _tags(value: Any) -> bool:
    return type(value) is tuple and len(value) <= MOST_TAGS and all(map(_text, value))


def _position(value: Any) -> bool:
    return type(value) is tuple and len(value) == 2 and _sized(0, 16)(value[0]) and _count(value[1])


def _vary(value: Any) -> bool:
    return type(value) is tuple and len(value) <= MOST_VARIED and all(map(_varied, value))


def _varied(value: Any) -> bool:
    if type(value) is not tuple or len(value) != 2:
        return False
    return type(value[0]) is bytes and len(value[0]) <= LONGEST_TEXT and _sized(0, 16)(value[1])


def _pairs(value: Any) -> bool:
    return type(value) is tuple and all(map(_pair, value))


def _pair(value: Any) -> bool:
    if type(value) is not tuple or len(value) != 2:
        return False
    name, content = value
    if type(name) is not bytes or type(content) is not bytes:
        return False
    return _TOKEN.match(name) is not None and _FORBIDDEN.search(content) is None


_LAYOUT: tuple[Callable[[Any], bool], ...] = (
    _is(int),  # 0 the schema's version
    _sized(32),  # 1 the key's proof
    _status,  # 2
    _pairs,  # 3 headers
    _is(bytes),  # 4 body
    _form,  # 5
    _text,  # 6 service
    _text,  # 7 route
    _text,  # 8 model
    _time,  # 9 at
    _time,  # 10 ttl
    _time,  # 11 stale while revalidate
    _time,  # 12 stale if error
    _usage,  # 13 prompt, completion, cached, reasoning
    _text,  # 14 region
    _time,  # 15 seconds
    _tags,  # 16
    _sized(0, 16),  # 17 partition
    _position,  # 18 incarnation and number
    _vary,  # 19 names of fields and digests
    _is(bool),  # 20 strict
    _time,  # 21 age
    _sized(0, 16),  # 22 target
)
"""What the value of each number has to be."""

_NUMBERS = frozenset(range(len(_LAYOUT)))
_in_order = itemgetter(*range(len(_LAYOUT)))
