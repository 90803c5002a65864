"""
What each reason means, and what to do about it.

The rule: for each word in an answer, a log line or a metric there is one sentence of meaning and one of remedy.
``docs/reasons.md`` and ``sidecar explain`` show the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple


class Where(StrEnum):
    """Where a reason is shown, in the words of the page."""

    HIT = "hit"
    BYPASS = "not looked up"
    UNKEPT = "not kept"
    ERROR = "answered by the sidecar"


class Meaning(NamedTuple):
    """A reason: *where* it is told, what it *means*, and the *remedy*."""

    where: tuple[Where, ...]
    meaning: str
    remedy: str


_HIT, _BYPASS, _UNKEPT, _ERROR = ((where,) for where in Where)

_NOTHING = "Nothing to do."
_STATE = "Nothing to do: such a call is forwarded, and its answer is the service's each time."
_FIX_JSON = "Correct the program that writes the JSON; the service gets it as it came."
_TRY_AGAIN = "Nothing to do: the next such call is fetched, and kept if its answer is whole."
_NO_SUCH_WAY = "Correct the program that sends the call."

_WHY_BYPASSED: Mapping[str, Meaning] = {
    "ambiguous-document": Meaning(
        _BYPASS,
        "The body may hold more than one document, or one and a URL, and services differ in which counts.",
        "Send one document, with a content type that says its form.",
    ),
    "background": Meaning(_BYPASS, "`background: true`: the service is asked for the answer later.", _STATE),
    "blocklist": Meaning(_BYPASS, "Blocklists of your own judge the call, and can be changed.", _STATE),
    "body-too-large": Meaning(
        _BYPASS,
        "The body is larger than `limits.collect`, or there was no room for it on disk, so it was streamed on unread.",
        "Raise `limits.collect`, or give `state.dir` more room.",
    ),
    "cache-off": Meaning(
        _BYPASS, "The mode is `cache-off`: nothing is looked up or kept.", "End it: `sidecar mode normal`."
    ),
    "charset": Meaning(
        _BYPASS,
        "The content type names a charset other than UTF-8, in which the same bytes mean something else.",
        "Send JSON as UTF-8, without `charset`.",
    ),
    "conditional": Meaning(
        _BYPASS,
        "The request is conditional (`If-None-Match` and the like), or asks for another method than its own.",
        "Leave those header fields out.",
    ),
    "connection-options": Meaning(
        _BYPASS,
        "`Connection` names header fields. These are not sent on, so no decision may use them.",
        "Have `Connection` say only `close` or `keep-alive`.",
    ),
    "container": Meaning(_BYPASS, "The call names a container, in which the service keeps files.", _STATE),
    "content-encoded": Meaning(
        _BYPASS, "The request body is compressed, so it was not read.", "Send the body without `Content-Encoding`."
    ),
    "conversation": Meaning(
        _BYPASS,
        "The call goes on with a conversation that the service keeps.",
        "Send the messages themselves instead of `conversation`.",
    ),
    "custom-model": Meaning(
        _BYPASS,
        "The call names a model of your own, which can be trained again under the same name.",
        "Say `cache.custom_models: true` for the route, and purge its answers when you train a model again.",
    ),
    "diagnostics": Meaning(
        _BYPASS, "The call asks for `diagnostics`, which depend on more than the question.", "Leave `diagnostics` out."
    ),
    "duplicate-key": Meaning(
        _BYPASS, "A JSON object has a member twice, and parsers differ in which counts.", _FIX_JSON
    ),
    "file-id": Meaning(
        _BYPASS,
        "The call names a file that the service keeps, whose content the sidecar cannot know.",
        "Send the file's content in the call.",
    ),
    "foreign-host": Meaning(
        (Where.BYPASS, Where.ERROR),
        "`Host` is not a name of this sidecar, so a web page may have made a browser send the call here.",
        "Call the sidecar at its address, or add the name to `listen.names`.",
    ),
    "foreign-origin": Meaning(
        (Where.BYPASS, Where.ERROR),
        "The call comes from a web page (`Origin`, `Sec-Fetch-Site`).",
        "Call the sidecar from a program on the server.",
    ),
    "model-management": Meaning(_BYPASS, "The call builds, changes, lists or deletes models of your own.", _STATE),
    "retired-version": Meaning(
        _BYPASS,
        "The call is for a version of the service that has been retired.",
        "Use an SDK that calls a version in service.",
    ),
    "writes-results": Meaning(_BYPASS, "The service writes the results into a storage account.", _STATE),
    "glossary": Meaning(_BYPASS, "A document is translated by glossaries, which can be changed.", _STATE),
    "images": Meaning(_BYPASS, "Each call makes new images.", _STATE),
    "invalid-base64": Meaning(
        _BYPASS,
        "A document is not plain base64: it has blanks, escapes, letters of another alphabet, or wrong padding.",
        "Write it as RFC 4648, 4, has it, without a backslash in the JSON string; or send the document's bytes.",
    ),
    "invalid-json": Meaning(_BYPASS, "The body is not JSON.", _FIX_JSON),
    "invalid-multipart": Meaning(
        _BYPASS, "The form's parts, or its boundary, cannot be read.", "Correct the program that writes the form."
    ),
    "invalid-utf8": Meaning(_BYPASS, "The body is not UTF-8.", _FIX_JSON),
    "item-reference": Meaning(
        _BYPASS,
        "The input names an item of an earlier response by its id.",
        "Send the item itself, with its `type` and content.",
    ),
    "lone-surrogate": Meaning(
        _BYPASS, "A string has half of a surrogate pair, which parsers read differently.", _FIX_JSON
    ),
    "memory-full": Meaning(
        _BYPASS,
        "Request bodies in flight fill `limits.inflight_memory`, so this one went to disk unread.",
        "Raise `limits.inflight_memory`.",
    ),
    "negative-zero": Meaning(_BYPASS, "A number is `-0`, which parsers read differently.", _FIX_JSON),
    "nesting": Meaning(_BYPASS, "The JSON nests deeper than every parser follows.", _FIX_JSON),
    "no-document": Meaning(
        _BYPASS,
        "The body holds no document in a form that is known here.",
        "Send its bytes, or base64 or a URL in the member that the service names for it.",
    ),
    "no-credential": Meaning(
        (Where.BYPASS, Where.ERROR),
        "There is no credential. Either the caller sent none, so nobody can tell whose answer it would be (then the "
        "call is forwarded), or the region's own one cannot be had (then the call gets 503).",
        "Send a key; or see `[-] credential` at `/readyz?verbose` for the file or identity that is missing.",
    ),
    "not-an-object": Meaning(_BYPASS, "The body is JSON, but not an object.", _FIX_JSON),
    "not-deterministic": Meaning(
        _BYPASS,
        "The call may have another answer each time: it has no `temperature: 0`, or a URL is part of it.",
        "Send `temperature: 0`; or say `cache.mode: always` for the route; for a seed, `cache.seed: trusted`.",
    ),
    "number-out-of-range": Meaning(_BYPASS, "A number is larger or longer than every parser can hold.", _FIX_JSON),
    "observe": Meaning(
        _BYPASS,
        "The route only measures what would have hit (`cache.mode: observe`).",
        "Say `cache.mode: deterministic` or `always` for the route.",
    ),
    "passthrough": Meaning(
        _BYPASS,
        "The mode is `passthrough`: calls are only forwarded.",
        "End it: `sidecar mode normal`; where the configuration was refused, `sidecar check` says why.",
    ),
    "previous-response-id": Meaning(
        _BYPASS,
        "The call goes on with an earlier response that the service keeps.",
        "Send the messages themselves instead of `previous_response_id`.",
    ),
    "prompt-template": Meaning(
        _BYPASS,
        "The call names a prompt or preset that the service keeps, and that can be changed there.",
        "Send the prompt's text in the call.",
    ),
    "range": Meaning(_BYPASS, "The call asks for a part of an answer (`Range`).", "Leave `Range` out."),
    "reader-failed": Meaning(
        (Where.BYPASS, Where.UNKEPT),
        "A bug of the sidecar: reading such a request, or judging its answer, failed. The call went on anyway.",
        "Report the log line `bug`, which says where it is; it quotes nothing of the call.",
    ),
    "route-off": Meaning(
        _BYPASS,
        "The route has `cache.mode: off`.",
        "Set another `cache.mode` for the route, or put a route of your own before it.",
    ),
    "server-tools": Meaning(
        _BYPASS,
        "The service may search, run code or call others, so the answer depends on more than the question.",
        "Leave out the tool, member or model that does so; tools that the caller runs are no problem.",
    ),
    "stateful": Meaning(_BYPASS, "The call creates, changes or reads something that the service keeps.", _STATE),
    "store": Meaning(
        _BYPASS,
        "The service keeps the answer: `store` is true, or missing in a call to the Responses API.",
        "Send `store: false`.",
    ),
    "unknown-endpoint": Meaning(
        _BYPASS,
        "The service's dialect knows no operation with this method and path.",
        "Check the base URL (is `/v1` there once?) and the service's `dialect`; else there is nothing to do.",
    ),
    "operation": Meaning(
        _BYPASS,
        "The call asks about a long-running operation that neither this sidecar nor the fleet knows, or for a part of "
        "its result that only the service has.",
        "Nothing: the service answers it.",
    ),
    "unprovable-signature": Meaning(
        _BYPASS,
        "The caller signs each call, and only the service can check a signature.",
        "Use a key or token, or give the region a credential.",
    ),
    "url-source": Meaning(
        _BYPASS,
        "The call names a document by its URL, and what is behind a URL can change.",
        "Send the document itself; or say `cache.urls: unsigned` for the route.",
    ),
    "unreadable-member": Meaning(
        _BYPASS,
        "In a body above 256 KiB, a member that a decision needs was too long or too unusual to be read.",
        "Send smaller bodies; else there is nothing to do.",
    ),
}

_WHY_UNKEPT: Mapping[str, Meaning] = {
    "answer-encoded": Meaning(
        _UNKEPT, "The answer is compressed, though that was not asked for.", "Check the gateway before the service."
    ),
    "answer-too-large": Meaning(
        _UNKEPT,
        "The answer is larger than `cache.memory.max_entry_bytes`.",
        "Raise `cache.memory.max_entry_bytes`.",
    ),
    "content-filter": Meaning(_UNKEPT, "The service's filter took something out of the answer.", _NOTHING),
    "content-type": Meaning(
        _UNKEPT, "The answer is a web page.", "See what answers there: a login page, or a gateway's error?"
    ),
    "expired": Meaning(
        _UNKEPT,
        "The answer says that it is stale already.",
        "Say `cache.directives: ignore` for the route if the service says so of every answer.",
    ),
    "failed": Meaning(_UNKEPT, "The answer has status 200 and reports an error.", "See the error in the answer."),
    "misshapen": Meaning(
        _UNKEPT,
        "The answer can be read, and is not what was asked for: another form, or another number of results.",
        _TRY_AGAIN,
    ),
    "no-cache": Meaning(
        _UNKEPT,
        "The answer says `no-cache`.",
        "Say `cache.directives: ignore` for the route if the service says so of every answer.",
    ),
    "paused": Meaning(_UNKEPT, "The service paused in the middle of a turn, and is to be asked again.", _NOTHING),
    "private": Meaning(
        _UNKEPT,
        "The route shares answers, and this one says `private` or `no-store`.",
        "Say `share: principal` for the route, or `cache.directives: ignore`.",
    ),
    "status": Meaning(_UNKEPT, "The answer's status is not 200.", "See the answer."),
    "superseded": Meaning(_UNKEPT, "A purge came while the answer was on its way.", _NOTHING),
    "truncated": Meaning(_UNKEPT, "The answer ended before its end.", _TRY_AGAIN),
    "unfinished": Meaning(_UNKEPT, "The answer does not say that it has finished.", _TRY_AGAIN),
    "unframed": Meaning(
        _UNKEPT,
        "The answer has neither a length nor chunks, so a cut answer would look like a whole one.",
        "Check the gateway before the service.",
    ),
    "unknown-finish": Meaning(
        _UNKEPT,
        "The answer says why it ended, in a word that is not known to mean a good end.",
        "The log's `finish` has the word; report it, so that a later version knows it.",
    ),
    "unproven": Meaning(
        _UNKEPT,
        "The region's own credential was used, and the caller's credential was not accepted lately.",
        "Nothing to do if the caller's own calls succeed from time to time; else say `share: principal`.",
    ),
    "vary": Meaning(_UNKEPT, "The answer depends on more than the request (`Vary: *`).", _NOTHING),
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
    "memory": Meaning(_HIT, "This process had the answer in memory.", _NOTHING),
    "redis": Meaning(_HIT, "Another process of the fleet had put the answer into Redis.", _NOTHING),
    "stale": Meaning(
        _HIT,
        "The answer's `ttl` is over, and it serves while a new one is fetched (`cache.stale_while_revalidate`).",
        _NOTHING,
    ),
    "stale-if-error": Meaning(
        _HIT,
        "The answer's `ttl` is over, and no new one could be had (`cache.stale_if_error`).",
        "See `sidecar region ls`.",
    ),
}

_REFUSALS: Mapping[str, Meaning] = {
    "cannot-rename": Meaning(
        _ERROR,
        "Every region calls the model by a name of its own, which cannot be put into this call.",
        "Send a JSON body that names its model once, no larger than `limits.collect`.",
    ),
    "connect-unsupported": Meaning(_ERROR, "`CONNECT` is not supported.", "Use the base URL of the service."),
    "duplicate-field": Meaning(_ERROR, "A header field that may stand once stands there twice.", _NO_SUCH_WAY),
    "expectation-failed": Meaning(_ERROR, "`Expect` asks for something other than `100-continue`.", _NO_SUCH_WAY),
    "fields-too-large": Meaning(
        _ERROR,
        "The header or trailer fields are larger than `limits.headers` or `limits.trailers`.",
        "Send less, or raise the limit.",
    ),
    "foreign-token": Meaning(
        _ERROR,
        "The call carries a token that Microsoft issued, and would take it to another vendor.",
        "Use the Azure service's base URL or a key; for a gateway say `credential_domain: microsoft`.",
    ),
    "framing-lookalike": Meaning(
        _ERROR,
        "A field's name looks like Content-Length or Transfer-Encoding (`Content_Length`); some servers read it so.",
        _NO_SUCH_WAY,
    ),
    "host-invalid": Meaning(_ERROR, "`Host` is not a host name with an optional port.", _NO_SUCH_WAY),
    "host-missing": Meaning(_ERROR, "The request has no `Host`.", _NO_SUCH_WAY),
    "http-version-unsupported": Meaning(
        _ERROR, "The request is not of HTTP/1.1 or HTTP/1.0.", "Have the client speak HTTP/1.1."
    ),
    "internal": Meaning(
        _ERROR, "The sidecar failed because of a bug in it.", "The log line `bug` says where; report it."
    ),
    "length-ambiguous": Meaning(_ERROR, "The request has both `Content-Length` and `Transfer-Encoding`.", _NO_SUCH_WAY),
    "malformed-request": Meaning(_ERROR, "The request is not well-formed HTTP/1.1.", _NO_SUCH_WAY),
    "method-unsupported": Meaning(_ERROR, "The request method is not known.", _NO_SUCH_WAY),
    "misdirected": Meaning(
        _ERROR,
        "The call has the form of another service than the one it was sent to.",
        "Use the base URL that the answer names.",
    ),
    "no-region-allowed": Meaning(
        _ERROR,
        "The route allows none of the regions for this call, or its route cannot be told without its model.",
        "See `allow` of the route and `residency` of the regions; `sidecar explain` shows both.",
    ),
    "operation-not-found": Meaning(
        _ERROR,
        "The call asks about a long-running operation with an id that belongs to another caller.",
        "Poll with a credential of the principal that has started the operation.",
    ),
    "operation-result": Meaning(
        _HIT, "A poll got the result of a long-running operation from the sidecar, without a call.", _NOTHING
    ),
    "operation-running": Meaning(
        _ERROR, "The sidecar has told a poll that the long-running operation still runs.", _NOTHING
    ),
    "operation-erased": Meaning(
        _ERROR, "The caller had the result of a long-running operation erased, and so it was.", _NOTHING
    ),
    "only-if-cached": Meaning(
        _ERROR, "The caller wants a stored answer only, and there is none.", "Leave `only-if-cached` out."
    ),
    "request-timeout": Meaning(
        _ERROR,
        "The request did not arrive within `limits.head` and `limits.body`.",
        "Check the client, or raise the limit.",
    ),
    "route-limit": Meaning(
        _ERROR,
        "The route is at one of its `limits`, and the call may not wait, or waiting would not help.",
        "Wait for `Retry-After`; or raise the route's `limits`.",
    ),
    "spool-lost": Meaning(
        _ERROR, "The request body could not be read back from disk.", "Check the disk under `state.dir`; try again."
    ),
    "target-invalid": Meaning(_ERROR, "The request target is not a path.", _NO_SUCH_WAY),
    "target-not-host": Meaning(_ERROR, "The request target names another host than `Host`.", _NO_SUCH_WAY),
    "target-too-long": Meaning(
        _ERROR, "The request line is longer than `limits.request_line`.", "Send less, or raise the limit."
    ),
    "transfer-encoding-http10": Meaning(
        _ERROR, "HTTP/1.0 has no `Transfer-Encoding`.", "Have the client speak HTTP/1.1."
    ),
    "transfer-encoding-unsupported": Meaning(_ERROR, "The transfer encoding is not `chunked`.", _NO_SUCH_WAY),
    "unknown-resource": Meaning(
        _ERROR,
        "The path names no resource, but the service's form needs one.",
        "Use the base URL that the answer names.",
    ),
    "unknown-service": Meaning(
        _ERROR, "No service has this path, host or port.", "Use one of the base URLs that the answer names."
    ),
    "upgrade-unsupported": Meaning(_ERROR, "Switching protocols is not supported.", "Have the client speak HTTP/1.1."),
}

REASONS: Mapping[str, Meaning] = MappingProxyType({**_HITS, **_WHY_BYPASSED, **_WHY_UNKEPT, **_WHY_EITHER, **_REFUSALS})
"""Every reason, by its word."""
