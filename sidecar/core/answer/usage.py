"""
Asks a provider for a stream's token counts on the caller's behalf.

The rule: the caller's bytes stay the same; one member is put before them. Only if they already have that member, the
object is written anew, each of its values as it came.
"""

from __future__ import annotations

from msgspec import Raw, json

from sidecar.core.key.json_rule import UNREADABLE

_MEMBER = b'"stream_options":{"include_usage":true},'
_MARK = b"\xef\xbb\xbf"

_members = json.Decoder(dict[str, Raw]).decode


def with_usage(body: bytes) -> bytes:
    """
    Add ``stream_options.include_usage`` to *body*, a JSON object with members that does not have it (OpenAI API
    reference, "Create chat completion"). A body that is not such an object is returned unchanged.
    """
    try:
        members = _members(body.removeprefix(_MARK))
        options = _members(members["stream_options"]) if "stream_options" in members else None
    except UNREADABLE:
        return body
    if not members:
        return body
    if options is None:
        brace = body.index(b"{") + 1
        return body[:brace] + _MEMBER + body[brace:]
    members["stream_options"] = Raw(json.encode({**options, "include_usage": True}))
    return json.encode(members)


def names_usage(body: bytes) -> bool:
    """Whether an error answer complains about the member that ``with_usage`` adds."""
    return b"stream_options" in body or b"include_usage" in body
