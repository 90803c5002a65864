"""
The nouns of the line: what a request, a key, an entry and a record are.

The rule: values only. Everything here is immutable once built, holds no behaviour beyond describing itself, and
crosses between floors freely. Times called *now* or *at* are seconds since the epoch (wall clock, so that they mean
the same in another pod); durations are seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from msgspec import Struct

Pairs = tuple[tuple[bytes, bytes], ...]
"""Header fields in the order and spelling in which they came."""

Fields = Mapping[bytes, bytes]
"""Header fields by lower-case name; a repeated field's values are joined by ``, `` (RFC 9110, 5.3)."""


class Head(Struct, frozen=True, gc=False):
    """
    A request's head as the listener read it.

    *target* is the request target byte for byte; *minor* the x of HTTP/1.x; *port* the local port that took the
    connection, for services that have a port of their own.
    """

    method: bytes
    target: bytes
    minor: int
    pairs: Pairs
    fields: dict[bytes, bytes]
    port: int = 0


class Form(StrEnum):
    """The form of an answer's body: one whole document, or a stream of server-sent events."""

    WHOLE = "whole"
    EVENTS = "events"


class View(Struct, frozen=True, gc=False):
    """
    How one caller wants an answer that several callers may share.

    *stream*: as server-sent events. *usage*: with the token counts that a stream shows only on request. Neither is part
    of the key where the dialect can convert between the forms.
    """

    stream: bool = False
    usage: bool = True


class Usage(Struct, frozen=True, gc=False):
    """
    What the provider charges a call for. Token counts are as it reported them; *cached* is the part of *prompt* that it
    served from its own cache. The quantities of ``BILLED`` are those of services that count no tokens: *pages* of
    documents, *images*, *characters* of text, *seconds* of audio, and *records* of at most 1000 characters of text.
    """

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    reasoning: int = 0
    pages: int = 0
    images: int = 0
    characters: int = 0
    seconds: int = 0
    records: int = 0

    @property
    def total(self) -> int:
        """Prompt and completion tokens together."""
        return self.prompt + self.completion


BILLED = ("pages", "images", "characters", "seconds", "records")
"""The quantities beside tokens that services charge for, by the names of their members in ``Usage``."""


class Facts(Struct, frozen=True, gc=False):
    """
    What a dialect reads from a request's members.

    *model*: the model asked for, ``""`` where the endpoint has none. *deterministic*: the same question has the same
    answer (explicit temperature 0; embeddings and the like always). *seeded*: a seed was given. *bypass*: the first
    reason why this call is never looked up, otherwise ``""``; *further*: the other reasons, for people. *needs*: why it
    is not looked up unless its route allows just that. *inject_usage*: the stream's usage must be asked for on the
    caller's behalf, and the body can do that.

    Three facts are for the answer. *expects*: how many results it must have, 0 if any number is right or the
    number is not known. *format*: the form of the answer as the caller names it (``srt``), ``""`` if it does not.
    *charged*: what the service charges for such a call, as far as the request shows it; it counts where the answer does
    not say it.
    """

    model: str = ""
    view: View = View()
    deterministic: bool = False
    seeded: bool = False
    bypass: str = ""
    further: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    inject_usage: bool = False
    expects: int = 0
    format: str = ""
    charged: Usage | None = None


class Reading(Struct, frozen=True, gc=False):
    """
    A request body, read: its canonical form for the key, and the facts in it.

    *tag* names how the material was made (``json``, ``raw``, ``multipart``, ``none``) and is part of the key.
    *material* is the canonical bytes, or a keyed digest of them for bodies too large to hold. A body that cannot be
    brought to canonical form safely has ``facts.bypass`` set and empty material.
    """

    tag: bytes
    material: bytes
    facts: Facts


class Key(NamedTuple):
    """
    Identifies a call, to find its answer again.

    *proof*: 32 bytes, keyed BLAKE2b-256 of the key material. *address*: 16 bytes, XXH3-128 of the proof. Keys are
    always compared whole: two calls with one address are still two calls.
    """

    address: bytes
    proof: bytes

    def __repr__(self) -> str:
        return f"<Key {self.address.hex()}>"


class Position(NamedTuple):
    """
    How far the fleet's log of purges was known. *incarnation* is 16 random bytes of that log, ``b""`` if there is none;
    positions of different incarnations cannot be compared.
    """

    incarnation: bytes = b""
    number: int = 0


MOST_TAGS = 32
"""The most tags of an entry."""


class Entry(Struct, frozen=True, gc=False):
    """
    A complete answer that may be served again. Immutable; its body is the upstream's, byte for byte, in *form*.

    *headers* are only those that every caller may see. *at* is when the answer was complete, *ttl* how long it is
    fresh; *stale_while_revalidate* and *stale_if_error* how long after that it may still serve. *seconds* is how long
    the upstream took. *partition*, 16 bytes, is whose answers it belongs to; *position* what was known of the fleet's
    purges before its upstream call was sent.

    *vary*: the request fields on which the answer depends, each with a digest of what its request had there (see
    ``core/cache/variants``). *strict*: it never serves stale. *age*: how old it was by what the service said, seconds.
    *target*: of what, 16 bytes, it is a representation, for calls that change that; ``b""`` where no call does.
    """

    status: int
    headers: Pairs
    body: bytes
    form: Form
    service: str
    route: str
    model: str
    at: float
    ttl: float
    usage: Usage = Usage()
    stale_while_revalidate: float = 0.0
    stale_if_error: float = 0.0
    region: str = ""
    seconds: float = 0.0
    tags: tuple[str, ...] = ()
    partition: bytes = b""
    position: Position = Position()
    vary: Pairs = ()
    strict: bool = False
    age: float = 0.0
    target: bytes = b""

    @property
    def dead(self) -> float:
        """When the entry can no longer serve anybody, seconds since the epoch."""
        return self.at + self.ttl + max(self.stale_while_revalidate, self.stale_if_error)

    @property
    def size(self) -> int:
        """Bytes of body and headers; the store counts the overhead."""
        return len(self.body) + sum([len(name) + len(value) for name, value in self.headers])  # a list is sooner made


class Outcome(StrEnum):
    """How a request ended: the label of ``sidecar_requests_total``."""

    HIT_MEMORY = "hit_memory"
    HIT_REDIS = "hit_redis"
    STALE = "stale"
    STALE_ERROR = "stale_error"
    COLLAPSED = "collapsed"
    MISS = "miss"
    BYPASS = "bypass"
    DEFERRED = "deferred"
    FALLBACK = "fallback"
    ERROR = "error"
    POLL = "poll"
    """A call that asks about a long-running operation, and is answered here."""
    REFRESH = "refresh"
    """Not a request: a call of the sidecar itself, for an answer that is getting old."""


class Record(Struct, frozen=True, gc=False):
    """
    One request, described once; metrics, log, ledger and traces read it.

    *attempts* is how often it was sent, *retry_causes* why each time beyond the first. *seconds* is from the whole
    request read to the last byte of the answer handed on; *upstream_seconds* the part of it spent waiting for a
    service; *reason* why it was bypassed, not stored or refused. *stored*: the answer is kept. *observed* (mode
    observe): whether it would have hit: ``first``, ``same`` or ``different``. *finish*: the word by which the answer
    said why it ended, if that word is not known to mean a good end. *key* is the address of the call's key, ``b""`` if
    it has none; calls are sampled by it, and the log shows only its beginning.

    *first_content_seconds* is from the whole request read to the first byte of content handed on, None if there was
    none; an error is no content. *error_origin*: who caused the error (``core/answer/blame``), ``""`` where the caller
    got its answer.
    """

    at: float
    request_id: bytes
    service: str
    route: str
    endpoint: str
    outcome: Outcome
    status: int
    method: bytes = b""
    model: str = ""
    reason: str = ""
    region: str = ""
    seconds: float = 0.0
    upstream_seconds: float = 0.0
    attempts: int = 0
    retry_causes: tuple[str, ...] = ()
    bytes_in: int = 0
    bytes_out: int = 0
    usage: Usage | None = None
    stored: bool = False
    streamed: bool = False
    upstream_status: int = 0
    upstream_id: str = ""
    upstream_region: str = ""
    cause: str = ""
    observed: str = ""
    finish: str = ""
    key: bytes = b""
    first_content_seconds: float | None = None
    error_origin: str = ""
