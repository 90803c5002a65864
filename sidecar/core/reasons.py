"""
What each reason means, and what to do about it.

The rule: for each word in an answer, a log line or a metric there is one sentence of meaning and one of remedy.
``docs/reasons.md`` and ``sidecar explain`` show the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from sidecar.core.bypass_reasons import WHY_BYPASSED
from sidecar.core.meaning import ERROR, HIT, NOTHING, UNKEPT, Meaning, Where

_TRY_AGAIN = "Nothing to do: the next such call is fetched, and kept if its answer is whole."
_NO_SUCH_WAY = "Correct the program that sends the call."

_WHY_UNKEPT: Mapping[str, Meaning] = {
    "answer-encoded": Meaning(
        UNKEPT, "The answer is compressed, though that was not asked for.", "Check the gateway before the service."
    ),
    "answer-too-large": Meaning(
        UNKEPT,
        "The answer is larger than `cache.memory.max_entry_bytes`.",
        "Raise `cache.memory.max_entry_bytes`.",
    ),
    "content-filter": Meaning(UNKEPT, "The service's filter took something out of the answer.", NOTHING),
    "content-type": Meaning(
        UNKEPT, "The answer is a web page.", "See what answers there: a login page, or a gateway's error?"
    ),
    "expired": Meaning(
        UNKEPT,
        "The answer says that it is stale already.",
        "Say `cache.directives: ignore` for the route if the service says so of every answer.",
    ),
    "failed": Meaning(UNKEPT, "The answer has status 200 and reports an error.", "See the error in the answer."),
    "misshapen": Meaning(
        UNKEPT,
        "The answer can be read, and is not what was asked for: another form, or another number of results.",
        _TRY_AGAIN,
    ),
    "no-cache": Meaning(
        UNKEPT,
        "The answer says `no-cache`.",
        "Say `cache.directives: ignore` for the route if the service says so of every answer.",
    ),
    "paused": Meaning(UNKEPT, "The service paused in the middle of a turn, and is to be asked again.", NOTHING),
    "private": Meaning(
        UNKEPT,
        "The route shares answers, and this one says `private` or `no-store`.",
        "Say `share: principal` for the route, or `cache.directives: ignore`.",
    ),
    "status": Meaning(UNKEPT, "The answer's status is not 200.", "See the answer."),
    "superseded": Meaning(UNKEPT, "A purge came while the answer was on its way.", NOTHING),
    "truncated": Meaning(UNKEPT, "The answer ended before its end.", _TRY_AGAIN),
    "unfinished": Meaning(UNKEPT, "The answer does not say that it has finished.", _TRY_AGAIN),
    "unframed": Meaning(
        UNKEPT,
        "The answer has neither a length nor chunks, so a cut answer would look like a whole one.",
        "Check the gateway before the service.",
    ),
    "unknown-finish": Meaning(
        UNKEPT,
        "The answer says why it ended, in a word that is not known to mean a good end.",
        "The log's `finish` has the word; report it, so that a later version knows it.",
    ),
    "unproven": Meaning(
        UNKEPT,
        "The region's own credential was used, and the caller's credential was not accepted lately.",
        "Nothing to do if the caller's own calls succeed from time to time; else say `share: principal`.",
    ),
    "vary": Meaning(UNKEPT, "The answer depends on more than the request (`Vary: *`).", NOTHING),
}

_WHY_EITHER: Mapping[str, Meaning] = {
    "extra-output": Meaning(
        (Where.BYPASS, Where.UNKEPT),
        "The result has parts that the service keeps and gives out by themselves: a PDF, figures, key frames.",
        "Leave `output` out if you do not fetch these.",
    ),
    "fallback": Meaning(
        (Where.BYPASS, Where.UNKEPT),
        "No region answered, so the route's `fallback` did.",
        "See `sidecar region ls`.",
    ),
    "no-store": Meaning(
        (Where.BYPASS, Where.UNKEPT),
        "Nothing is to be kept: the caller or the answer says so (`Cache-Control: no-store`), or the `ttl` is 0.",
        "Leave `no-store` out; for the answer's, say `cache.directives: ignore` for the route.",
    ),
    "unreadable": Meaning(
        (Where.BYPASS, Where.UNKEPT),
        "A member of the request has the wrong type, or the answer cannot be read to its end.",
        "For the request, see what the service answers; for the answer, nothing to do.",
    ),
}

_HITS: Mapping[str, Meaning] = {
    "memory": Meaning(HIT, "This process had the answer in memory.", NOTHING),
    "redis": Meaning(HIT, "Another process of the fleet had put the answer into Redis.", NOTHING),
    "stale": Meaning(
        HIT,
        "The answer's `ttl` is over, and it serves while a new one is fetched (`cache.stale_while_revalidate`).",
        NOTHING,
    ),
    "stale-if-error": Meaning(
        HIT,
        "The answer's `ttl` is over, and no new one could be had (`cache.stale_if_error`).",
        "See `sidecar region ls`.",
    ),
}

_REFUSALS: Mapping[str, Meaning] = {
    "cannot-rename": Meaning(
        ERROR,
        "Every region calls the model by a name of its own, which cannot be put into this call.",
        "Send a JSON body that names its model once, no larger than `limits.collect`.",
    ),
    "connect-unsupported": Meaning(ERROR, "`CONNECT` is not supported.", "Use the base URL of the service."),
    "duplicate-field": Meaning(ERROR, "A header field that may stand once stands there twice.", _NO_SUCH_WAY),
    "expectation-failed": Meaning(ERROR, "`Expect` asks for something other than `100-continue`.", _NO_SUCH_WAY),
    "fields-too-large": Meaning(
        ERROR,
        "The header or trailer fields are larger than `limits.headers` or `limits.trailers`.",
        "Send less, or raise the limit.",
    ),
    "foreign-token": Meaning(
        ERROR,
        "The call carries a token that Microsoft issued, and would take it to another vendor.",
        "Use the Azure service's base URL or a key; for a gateway say `credential_domain: microsoft`.",
    ),
    "framing-lookalike": Meaning(
        ERROR,
        "A field's name looks like Content-Length or Transfer-Encoding (`Content_Length`); some servers read it so.",
        _NO_SUCH_WAY,
    ),
    "host-invalid": Meaning(ERROR, "`Host` is not a host name with an optional port.", _NO_SUCH_WAY),
    "host-missing": Meaning(ERROR, "The request has no `Host`.", _NO_SUCH_WAY),
    "http-version-unsupported": Meaning(
        ERROR, "The request is not of HTTP/1.1 or HTTP/1.0.", "Have the client speak HTTP/1.1."
    ),
    "internal": Meaning(
        ERROR, "The sidecar failed because of a bug in it.", "The log line `bug` says where; report it."
    ),
    "length-ambiguous": Meaning(ERROR, "The request has both `Content-Length` and `Transfer-Encoding`.", _NO_SUCH_WAY),
    "malformed-request": Meaning(ERROR, "The request is not well-formed HTTP/1.1.", _NO_SUCH_WAY),
    "method-unsupported": Meaning(ERROR, "The request method is not known.", _NO_SUCH_WAY),
    "misdirected": Meaning(
        ERROR,
        "The call has the form of another service than the one it was sent to.",
        "Use the base URL that the answer names.",
    ),
    "no-region-allowed": Meaning(
        ERROR,
        "The route allows none of the regions for this call, or its route cannot be told without its model.",
        "See `allow` of the route and `residency` of the regions; `sidecar explain` shows both.",
    ),
    "operation-not-found": Meaning(
        ERROR,
        "The call asks about a long-running operation with an id that belongs to another caller.",
        "Poll with a credential of the principal that has started the operation.",
    ),
    "operation-result": Meaning(
        HIT, "A poll got the result of a long-running operation from the sidecar, without a call.", NOTHING
    ),
    "operation-running": Meaning(
        ERROR, "The sidecar has told a poll that the long-running operation still runs.", NOTHING
    ),
    "operation-erased": Meaning(
        ERROR, "The caller had the result of a long-running operation erased, and so it was.", NOTHING
    ),
    "only-if-cached": Meaning(
        ERROR, "The caller wants a stored answer only, and there is none.", "Leave `only-if-cached` out."
    ),
    "request-timeout": Meaning(
        ERROR,
        "The request did not arrive within `limits.head` and `limits.body`.",
        "Check the client, or raise the limit.",
    ),
    "route-limit": Meaning(
        ERROR,
        "The route is at one of its `limits`, and the call may not wait, or waiting would not help.",
        "Wait for `Retry-After`; or raise the route's `limits`.",
    ),
    "spool-lost": Meaning(
        ERROR, "The request body could not be read back from disk.", "Check the disk under `state.dir`; try again."
    ),
    "target-invalid": Meaning(ERROR, "The request target is not a path.", _NO_SUCH_WAY),
    "target-not-host": Meaning(ERROR, "The request target names another host than `Host`.", _NO_SUCH_WAY),
    "target-too-long": Meaning(
        ERROR, "The request line is longer than `limits.request_line`.", "Send less, or raise the limit."
    ),
    "transfer-encoding-http10": Meaning(
        ERROR, "HTTP/1.0 has no `Transfer-Encoding`.", "Have the client speak HTTP/1.1."
    ),
    "transfer-encoding-unsupported": Meaning(ERROR, "The transfer encoding is not `chunked`.", _NO_SUCH_WAY),
    "unknown-resource": Meaning(
        ERROR,
        "The path names no resource, but the service's form needs one.",
        "Use the base URL that the answer names.",
    ),
    "unknown-service": Meaning(
        ERROR, "No service has this path, host or port.", "Use one of the base URLs that the answer names."
    ),
    "upgrade-unsupported": Meaning(ERROR, "Switching protocols is not supported.", "Have the client speak HTTP/1.1."),
}

REASONS: Mapping[str, Meaning] = MappingProxyType({**_HITS, **WHY_BYPASSED, **_WHY_UNKEPT, **_WHY_EITHER, **_REFUSALS})
"""Every reason, by its word."""
