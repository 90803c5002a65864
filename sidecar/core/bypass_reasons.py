"""
Why a call is not looked up: what each reason means, and what to do about it.

The rule: as in ``reasons``, which has all of them.
"""

from __future__ import annotations

from collections.abc import Mapping

from sidecar.core.meaning import BYPASS, Meaning, Where

_STATE = "Nothing to do: such a call is forwarded, and its answer is the service's each time."
_FIX_JSON = "Correct the program that writes the JSON; the service gets it as it came."

WHY_BYPASSED: Mapping[str, Meaning] = {
    "ambiguous-document": Meaning(
        BYPASS,
        "The body may hold more than one document, or one and a URL, and services differ in which counts.",
        "Send one document, with a content type that says its form.",
    ),
    "background": Meaning(BYPASS, "`background: true`: the service is asked for the answer later.", _STATE),
    "blocklist": Meaning(BYPASS, "Blocklists of your own judge the call, and can be changed.", _STATE),
    "body-too-large": Meaning(
        BYPASS,
        "The body is larger than `limits.collect`, or there was no room for it on disk, so it was streamed on unread.",
        "Raise `limits.collect`, or give `state.dir` more room.",
    ),
    "cache-off": Meaning(
        BYPASS, "The mode is `cache-off`: nothing is looked up or kept.", "End it: `sidecar mode normal`."
    ),
    "charset": Meaning(
        BYPASS,
        "The content type names a charset other than UTF-8, in which the same bytes mean something else.",
        "Send JSON as UTF-8, without `charset`.",
    ),
    "conditional": Meaning(
        BYPASS,
        "The request is conditional (`If-None-Match` and the like), or asks for another method than its own.",
        "Leave those header fields out.",
    ),
    "connection-options": Meaning(
        BYPASS,
        "`Connection` names header fields. These are not sent on, so no decision may use them.",
        "Have `Connection` say only `close` or `keep-alive`.",
    ),
    "container": Meaning(BYPASS, "The call names a container, in which the service keeps files.", _STATE),
    "content-encoded": Meaning(
        BYPASS, "The request body is compressed, so it was not read.", "Send the body without `Content-Encoding`."
    ),
    "conversation": Meaning(
        BYPASS,
        "The call goes on with a conversation that the service keeps.",
        "Send the messages themselves instead of `conversation`.",
    ),
    "custom-model": Meaning(
        BYPASS,
        "The call names a model of your own, which can be trained again under the same name.",
        "Say `cache.custom_models: true` for the route, and purge its answers when you train a model again.",
    ),
    "diagnostics": Meaning(
        BYPASS, "The call asks for `diagnostics`, which depend on more than the question.", "Leave `diagnostics` out."
    ),
    "duplicate-key": Meaning(
        BYPASS, "A JSON object has a member twice, and parsers differ in which counts.", _FIX_JSON
    ),
    "file-id": Meaning(
        BYPASS,
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
    "model-management": Meaning(BYPASS, "The call builds, changes, lists or deletes models of your own.", _STATE),
    "retired-version": Meaning(
        BYPASS,
        "The call is for a version of the service that has been retired.",
        "Use an SDK that calls a version in service.",
    ),
    "writes-results": Meaning(BYPASS, "The service writes the results into a storage account.", _STATE),
    "glossary": Meaning(BYPASS, "A document is translated by glossaries, which can be changed.", _STATE),
    "images": Meaning(BYPASS, "Each call makes new images.", _STATE),
    "invalid-base64": Meaning(
        BYPASS,
        "A document is not plain base64: it has blanks, escapes, letters of another alphabet, or wrong padding.",
        "Write it as RFC 4648, 4, has it, without a backslash in the JSON string; or send the document's bytes.",
    ),
    "invalid-json": Meaning(BYPASS, "The body is not JSON.", _FIX_JSON),
    "invalid-multipart": Meaning(
        BYPASS, "The form's parts, or its boundary, cannot be read.", "Correct the program that writes the form."
    ),
    "invalid-utf8": Meaning(BYPASS, "The body is not UTF-8.", _FIX_JSON),
    "item-reference": Meaning(
        BYPASS,
        "The input names an item of an earlier response by its id.",
        "Send the item itself, with its `type` and content.",
    ),
    "lone-surrogate": Meaning(
        BYPASS, "A string has half of a surrogate pair, which parsers read differently.", _FIX_JSON
    ),
    "memory-full": Meaning(
        BYPASS,
        "Request bodies in flight fill `limits.inflight_memory`, so this one went to disk unread.",
        "Raise `limits.inflight_memory`.",
    ),
    "negative-zero": Meaning(BYPASS, "A number is `-0`, which parsers read differently.", _FIX_JSON),
    "nesting": Meaning(BYPASS, "The JSON nests deeper than every parser follows.", _FIX_JSON),
    "no-document": Meaning(
        BYPASS,
        "The body holds no document in a form that is known here.",
        "Send its bytes, or base64 or a URL in the member that the service names for it.",
    ),
    "no-credential": Meaning(
        (Where.BYPASS, Where.ERROR),
        "There is no credential. Either the caller sent none, so nobody can tell whose answer it would be (then the "
        "call is forwarded), or the region's own one cannot be had (then the call gets 503).",
        "Send a key; or see `[-] credential` at `/readyz?verbose` for the file or identity that is missing.",
    ),
    "not-an-object": Meaning(BYPASS, "The body is JSON, but not an object.", _FIX_JSON),
    "not-deterministic": Meaning(
        BYPASS,
        "The call may have another answer each time: it has no `temperature: 0`, or a URL is part of it.",
        "Send `temperature: 0`; or say `cache.mode: always` for the route; for a seed, `cache.seed: trusted`.",
    ),
    "number-out-of-range": Meaning(BYPASS, "A number is larger or longer than every parser can hold.", _FIX_JSON),
    "observe": Meaning(
        BYPASS,
        "The route only measures what would have hit (`cache.mode: observe`).",
        "Say `cache.mode: deterministic` or `always` for the route.",
    ),
    "passthrough": Meaning(
        BYPASS,
        "The mode is `passthrough`: calls are only forwarded.",
        "End it: `sidecar mode normal`; where the configuration was refused, `sidecar check` says why.",
    ),
    "previous-response-id": Meaning(
        BYPASS,
        "The call goes on with an earlier response that the service keeps.",
        "Send the messages themselves instead of `previous_response_id`.",
    ),
    "prompt-template": Meaning(
        BYPASS,
        "The call names a prompt or preset that the service keeps, and that can be changed there.",
        "Send the prompt's text in the call.",
    ),
    "range": Meaning(BYPASS, "The call asks for a part of an answer (`Range`).", "Leave `Range` out."),
    "reader-failed": Meaning(
        (Where.BYPASS, Where.UNKEPT),
        "A bug of the sidecar: reading such a request, or judging its answer, failed. The call went on anyway.",
        "Report the log line `bug`, which says where it is; it quotes nothing of the call.",
    ),
    "route-off": Meaning(
        BYPASS,
        "The route has `cache.mode: off`.",
        "Set another `cache.mode` for the route, or put a route of your own before it.",
    ),
    "server-tools": Meaning(
        BYPASS,
        "The service may search, run code or call others, so the answer depends on more than the question.",
        "Leave out the tool, member or model that does so; tools that the caller runs are no problem.",
    ),
    "stateful": Meaning(BYPASS, "The call creates, changes or reads something that the service keeps.", _STATE),
    "store": Meaning(
        BYPASS,
        "The service keeps the answer: `store` is true, or missing in a call to the Responses API.",
        "Send `store: false`.",
    ),
    "unknown-endpoint": Meaning(
        BYPASS,
        "The service's dialect knows no operation with this method and path.",
        "Check the base URL (is `/v1` there once?) and the service's `dialect`; else there is nothing to do.",
    ),
    "operation": Meaning(
        BYPASS,
        "The call asks about a long-running operation that neither this sidecar nor the fleet knows, or for a part of "
        "its result that only the service has.",
        "Nothing: the service answers it.",
    ),
    "unprovable-signature": Meaning(
        BYPASS,
        "The caller signs each call, and only the service can check a signature.",
        "Use a key or token, or give the region a credential.",
    ),
    "url-source": Meaning(
        BYPASS,
        "The call names a document by its URL, and what is behind a URL can change.",
        "Send the document itself; or say `cache.urls: unsigned` for the route.",
    ),
    "unreadable-member": Meaning(
        BYPASS,
        "In a body above 256 KiB, a member that a decision needs was too long or too unusual to be read.",
        "Send smaller bodies; else there is nothing to do.",
    ),
}
