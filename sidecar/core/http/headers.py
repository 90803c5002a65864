"""
Which header fields go where.

The rule: a field stands in one of these tables, once. Requests lose the fields that speak to the sidecar and those of
the connection. An answer to its own caller loses the fields of the connection. An answer to anybody else keeps only the
listed fields.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from functools import lru_cache

from sidecar.core.http import retry_after
from sidecar.core.model import Fields, Pairs

HOP_BY_HOP = frozenset({
    b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection",
    b"te", b"trailer", b"transfer-encoding", b"upgrade",
})  # fmt: skip
"""Fields of one connection (RFC 9110, 7.6.1), with the old spellings still in use."""

PLAIN_OPTIONS = HOP_BY_HOP | {b"close", b""}
"""Words in ``Connection`` that take no field out of the message."""

_USUAL_OPTIONS = frozenset({b"keep-alive", b"Keep-Alive", b"close"})
_NONE: frozenset[bytes] = frozenset()

OURS = frozenset({
    b"cache-control", b"pragma", b"x-sidecar-ttl", b"x-sidecar-tags", b"x-sidecar-fallback", b"x-sidecar-priority",
    b"x-sidecar-callback", b"x-sidecar-readers",
})  # fmt: skip
"""Request fields that speak to the sidecar; never forwarded. ``Prefer: respond-async`` is dropped by its value."""

REWRITTEN = frozenset({b"host", b"content-length", b"expect"})
"""Request fields that the upstream client writes itself."""

REPLAYED = frozenset({
    b"content-type", b"content-language", b"content-disposition", b"openai-version", b"openai-model",
    b"x-ms-rai-invoked",
})  # fmt: skip
"""Answer fields that describe the answer, not the call: the only ones that other callers see."""

NEVER_RELAYED = frozenset({b"content-length", b"date", b"alt-svc", b"strict-transport-security"})
"""Answer fields that the listener writes itself, or that concern an origin which the caller does not talk to."""

_NEVER_FORWARDED = HOP_BY_HOP | OURS | REWRITTEN
_NEVER_FOR_THE_STORE = _NEVER_FORWARDED | {b"accept-encoding"}
_NEVER_TO_A_CALLER = HOP_BY_HOP | NEVER_RELAYED

CREDENTIALS = frozenset({b"authorization", b"api-key", b"x-api-key", b"ocp-apim-subscription-key", b"x-goog-api-key"})
"""Every request field that any service reads a key from."""


CREDENTIAL_QUERY = frozenset({
    "api-key", "api_key", "apikey", "x-api-key", "x-goog-api-key", "subscription-key", "ocp-apim-subscription-key",
    "key", "code", "sig", "access_token", "access-token", "bearer_token", "token", "authorization", "password",
    "client_secret",
})  # fmt: skip
"""Query members that some service reads a key from, in lower case."""

RETRY_AFTER = retry_after.FIELDS
LONGEST_RETRY_AFTER = retry_after.LONGEST

_SHOULD_RETRY = b"x-should-retry"
NO_RETRY = (_SHOULD_RETRY, b"false")
"""Tells the caller not to try again; the SDKs of OpenAI and Anthropic obey it."""

UPSTREAM_IDS = (b"x-request-id", b"request-id", b"apim-request-id", b"x-ms-request-id", b"x-requestid")
"""Answer fields with a provider's own id of the call, for the log; the first with an id counts."""

ADDRESSES = frozenset({b"operation-location", b"azure-asyncoperation", b"location"})
"""Answer fields that hold an address which the caller asks next."""

_SECRETIVE = re.compile(
    rb"auth(?:orization|entication)?(?:$|[-_])"
    rb"|(?:^|[-_])(?:token|secrets?|pass(?:word|wd|phrase)s?|pwd|credentials?|jwt|assertion|apikey|vk)(?:$|[-_])"
    rb"|(?:^|[-_])(?:access|api|auth|bearer|id|refresh|session|user)tokens?$"
    rb"|(?:access|account|api|functions|master|private|secret|session|shared|subscription|virtual)[-_]?key$"
    rb"|[-_]key$|client-principal|^cookie2$|^x-amzn-oidc-"
)
"""Names of request fields that may carry a credential, of any gateway. This is the only list of such names."""

_HARMLESS = frozenset({
    b"idempotency-key", b"x-idempotency-key", b"sec-websocket-key", b"x-csrf-token", b"x-xsrf-token", b"x-cache-key",
    b"prompt-cache-key", b"x-prompt-cache-key", b"partition-key", b"x-partition-key",
})  # fmt: skip
"""Names that only look like it: their values prove nothing to a service."""

SELECTORS = frozenset({b"x-portkey-virtual-key", b"x-bf-vk"})
"""Credentials by which a gateway also chooses the provider (Portkey, Bifrost): they change the answer."""

LONGEST_NAME = 64
"""The longest name about which anything is remembered. Callers choose names, and a name may fill a whole head."""

_ID = re.compile(rb"[\w.:/=+-]{1,128}\Z")


def is_secretive(name: bytes) -> bool:
    """Whether the name of the request field, in lower case, looks like that of a credential."""
    return _remembered(name) if len(name) <= LONGEST_NAME else _looks_secretive(name)


def _looks_secretive(name: bytes) -> bool:
    return name in CREDENTIALS or (_SECRETIVE.search(name) is not None and name not in _HARMLESS)


_remembered = lru_cache(maxsize=4096)(_looks_secretive)


def patience(fields: Fields) -> float | None:
    """
    How long the caller waits for an answer, in seconds, if it says so: the SDKs of OpenAI and Anthropic name their read
    timeout. The result is a little less, so that our error reaches the caller before its own timeout.
    """
    value = fields.get(b"x-stainless-read-timeout")
    if value is None:
        return None
    seconds = retry_after.read(value.decode("latin-1").strip(), 1.0, 0.0)
    return None if not seconds else max(seconds - min(0.25, seconds / 50), 0.001)


def named_by_connection(fields: Fields) -> frozenset[bytes]:
    """The fields that a message's ``Connection`` field declares to be its connection's (RFC 9110, 7.6.1)."""
    value = fields.get(b"connection")
    if value is None or value in _USUAL_OPTIONS:
        return _NONE
    return frozenset([token.strip().lower() for token in value.split(b",")])


def forward(
    pairs: Pairs,
    fields: Fields,
    *,
    identity: bool,
    replace: Pairs = (),
    scopes: Iterable[bytes] = (),
    credentials: Collection[bytes] = (),
) -> Pairs:
    """
    The fields of a request as they go upstream, in the caller's order and spelling.

    *identity*: the answer may be stored, so no content coding is asked for. *replace*: a region's own credential. Then
    the caller's credential fields (those that look so, and the service's own *credentials*), its cookies and the API's
    *scopes* are left out. ``Prefer`` loses ``respond-async`` and keeps everything else (RFC 7240).
    """
    dropped = _NEVER_FOR_THE_STORE if identity else _NEVER_FORWARDED
    if b"connection" in fields:
        dropped |= named_by_connection(fields)
    if replace:
        dropped |= {b"cookie", b"x-csrf-token", b"x-xsrf-token", *scopes, *credentials}
        dropped |= {name.lower() for name, _ in replace}
        dropped |= {name for name in fields if is_secretive(name)}
    kept = [pair for pair in pairs if pair[0].lower() not in dropped]
    if b"prefer" in fields:
        kept = _without_waiting(kept)
    if identity:
        kept.append((b"accept-encoding", b"identity"))
    return (*kept, *replace)


def _without_waiting(pairs: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    kept = []
    for name, value in pairs:
        if name.lower() != b"prefer":
            kept.append((name, value))
        elif left := without_waiting(value):
            kept.append((name, left))
    return kept


def relay(pairs: Pairs, fields: Fields, now: float, *, own: bool = True) -> Pairs:
    """
    The fields of an upstream's answer for its own caller. *own*: the call carried the caller's own credential;
    otherwise the answer's cookies belong to the region and are left out.
    """
    dropped = _NEVER_TO_A_CALLER
    if b"connection" in fields:
        dropped |= named_by_connection(fields)
    if not own:
        dropped |= {b"set-cookie"}
    kept = tuple([pair for pair in pairs if pair[0].lower() not in dropped])
    if RETRY_AFTER.keys().isdisjoint(fields):
        return kept
    plain = tuple(pair for pair in kept if pair[0].lower() not in {*RETRY_AFTER, _SHOULD_RETRY})
    return (*plain, *retry_fields(fields, now))


def retry_fields(fields: Fields, now: float) -> Pairs:
    """
    What an answer says about trying again: whether, and when, in seconds, milliseconds or as an HTTP date (RFC 9110,
    10.2.3), in the service's own words. Values that cannot be read are left out, because some clients would try again
    at once. If every wait is longer than ``retry_after.HOPELESS``, whichever of them a client reads, the answer says
    not to try again.
    """
    waits = retry_after.waits(fields, now)
    wait_fields = tuple((name, fields[name]) for name in waits)
    if waits and min(waits.values()) > retry_after.HOPELESS:
        return (NO_RETRY, *wait_fields)
    return ((_SHOULD_RETRY, fields[_SHOULD_RETRY]), *wait_fields) if _SHOULD_RETRY in fields else wait_fields


def replay(pairs: Pairs, fields: Fields) -> Pairs:
    """The fields of an answer, *pairs* as they came, that every caller may see, with lower-case names, sorted."""
    if len(fields) == len(pairs):  # none came twice
        return tuple([(name, fields[name]) for name in sorted(REPLAYED.intersection(fields))])
    return tuple(sorted([(lower, value) for name, value in pairs if (lower := name.lower()) in REPLAYED]))


def fields_of(pairs: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Fields by lower-case name, repeats joined by ``, `` (RFC 9110, 5.3)."""
    found = [(name.lower(), value) for name, value in pairs]
    fields = dict(found)
    if len(fields) == len(found):
        return fields
    fields = {}
    for name, value in found:
        fields[name] = fields[name] + b", " + value if name in fields else value
    return fields


def upstream_id(fields: Fields) -> str:
    """
    The provider's own id of a call; ``""`` if no value looks like an id. The log repeats nothing else, and no id that
    is part of an address in the same answer: whoever knows that of an operation may ask for its result.
    """
    for name in UPSTREAM_IDS:
        value = fields.get(name)
        if value is not None and _ID.match(value) and not any(value in fields.get(where, b"") for where in ADDRESSES):
            return value.decode()
    return ""


def upstream_region(fields: Fields) -> str:
    """Where Azure says that it answered (``x-ms-region: West Europe``); ``""`` if it does not say."""
    value = fields.get(b"x-ms-region", b"").replace(b" ", b"-")
    return value.decode() if _ID.match(value) else ""


def lines(pairs: Pairs) -> bytes:
    """Header fields as they are sent, each ended by CRLF."""
    if len(pairs) == 1:
        return b"%b: %b\r\n" % pairs[0]
    return b"".join([b"%b: %b\r\n" % pair for pair in pairs])


def without_waiting(value: bytes) -> bytes:
    """A ``Prefer`` field without ``respond-async`` (RFC 7240, 4.1); ``b""`` if nothing else is in it."""
    wishes = value.split(b",")
    kept = [wish for wish in wishes if wish.partition(b";")[0].strip().lower() != b"respond-async"]
    return value if len(kept) == len(wishes) else b",".join(kept).strip()
