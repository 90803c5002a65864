"""
The content of an envelope: an entry and its key as MessagePack.

The rule: a map from the numbers of ``_LAYOUT`` to values, all of them and no others. What is read is used only after
every value has a type and range that our entries can have. A change of the layout, or of a value's meaning, changes
the schema, and an envelope of a schema that is not known is not read. An entry without billed quantities is written in
``SCHEMA``, which processes of the release before read, too.
"""

from __future__ import annotations

import re
from enum import StrEnum
from itertools import chain
from math import isnan
from operator import attrgetter, itemgetter
from typing import Any

import msgpack

from sidecar.core.key.fingerprint import address
from sidecar.core.model import BILLED, MOST_TAGS, Entry, Form, Key, Position, Usage

SCHEMA = 2
BILLED_SCHEMA = 3
"""The same with the quantities of ``BILLED`` after the counts of tokens."""

MOST_PAIRS = 256
MOST_VARIED = 32
LONGEST_TEXT = 4096
LONGEST_TIME = 1e10
"""Seconds: the year 2286, or a span of that length."""

_INTEGERS = 2**63
_token = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z").match  # RFC 9110, 5.6.2
_forbidden = re.compile(rb"[\r\n\0]").search  # RFC 9110, 5.5
_FORMS = frozenset(Form)
_first, _second = itemgetter(0), itemgetter(1)
_TOKENS = ("prompt", "completion", "cached", "reasoning")
_TOKENS_OF, _BILLED_OF = attrgetter(*_TOKENS), attrgetter(*BILLED)
_COUNTS = {SCHEMA: len(_TOKENS), BILLED_SCHEMA: len(_TOKENS) + len(BILLED)}
"""How many counts an entry's usage has in each schema."""


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
    tokens, billed = _TOKENS_OF(usage), _BILLED_OF(usage)
    values = (
        BILLED_SCHEMA if any(billed) else SCHEMA,
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
        [_counted(number) for number in (tokens + billed if any(billed) else tokens)],
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
    if fields[0] not in _COUNTS:
        return EnvelopeFault.VERSION
    if fields.keys() != _NUMBERS:
        return EnvelopeFault.PAYLOAD
    values = _in_order(fields)
    if tuple(map(type, values)) != _LAYOUT or not _in_range(values):
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


def _in_range(values: tuple[Any, ...]) -> bool:
    """Whether *values*, each of the type that ``_LAYOUT`` says, are such as our entries can have."""
    (
        schema, proof, status, headers, _, form, service, route, model, at, ttl, revalidate, error, usage, region,
        seconds, tags, partition, position, vary, _, age, target,
    ) = values  # fmt: skip
    if len(usage) != _COUNTS[schema] or len(position) != 2 or len(tags) > MOST_TAGS or len(vary) > MOST_VARIED:
        return False
    if not _are_pairs(headers + vary):
        return False
    incarnation, number = position
    texts = (service, route, model, region, *tags)
    times = (at, ttl, revalidate, error, seconds, age)
    counts = (*usage, number)
    marks = (partition, target, incarnation, *map(_second, vary))
    return (
        len(proof) == 32
        and 200 <= status <= 599
        and form in _FORMS
        and set(map(type, texts)) == {str}
        and max(map(len, texts)) <= LONGEST_TEXT
        and not any(map(isnan, times))
        and 0 <= min(times) <= max(times) <= LONGEST_TIME
        and set(map(type, counts)) == {int}
        and 0 <= min(counts) <= max(counts) < _INTEGERS
        and set(map(type, marks)) == {bytes}
        and set(map(len, marks)) <= {0, 16}
        and max(map(len, map(_first, vary)), default=0) <= LONGEST_TEXT
        and all(map(_token, map(_first, headers)))
        and not any(map(_forbidden, map(_second, headers)))
    )


def _are_pairs(values: tuple[Any, ...]) -> bool:
    """Whether *values* are pairs of bytes."""
    if not (set(map(type, values)) <= {tuple} and set(map(len, values)) <= {2}):
        return False
    return set(map(type, chain.from_iterable(values))) <= {bytes}


_LAYOUT: tuple[type, ...] = (
    int,  # 0 the schema's version
    bytes,  # 1 the key's proof
    int,  # 2 status
    tuple,  # 3 headers
    bytes,  # 4 body
    str,  # 5 form
    str,  # 6 service
    str,  # 7 route
    str,  # 8 model
    float,  # 9 at
    float,  # 10 ttl
    float,  # 11 stale while revalidate
    float,  # 12 stale if error
    tuple,  # 13 prompt, completion, cached, reasoning; in BILLED_SCHEMA also those of BILLED
    str,  # 14 region
    float,  # 15 seconds
    tuple,  # 16 tags
    bytes,  # 17 partition
    tuple,  # 18 incarnation and number
    tuple,  # 19 vary: names of fields and digests
    bool,  # 20 strict
    float,  # 21 age
    bytes,  # 22 target
)
"""The type of the value of each number."""

_NUMBERS = frozenset(range(len(_LAYOUT)))
_in_order = itemgetter(*range(len(_LAYOUT)))
