"""
What the stand-in provider says: words, numbers and JSON, all made from a digest of the question.

The rule: the same question has the same answer, streamed or not, today and tomorrow. Only ids and times are new each
time, and they come from outside.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b, shake_256
from itertools import islice
from math import sqrt
from struct import pack, unpack
from typing import Any, Final

Json = dict[str, Any]

OPENING: Final = "This is a canned answer of the sidecar's demo provider, not of a model:"

_WORDS: Final = re.findall(
    r"\w+",
    "amber anchor autumn birch breeze canyon cedar cinder clover cobalt comet copper coral delta ember falcon fern "
    "flint forest garnet glacier granite harbor hazel heron indigo island ivory jasper juniper lagoon lantern lichen "
    "maple marble meadow mint mosaic nectar north ocean olive onyx opal orchid pebble pine plume quartz raven reed "
    "river saffron sage sienna silver slate sparrow spruce summit thistle timber topaz tundra valley willow",
)

_REPRESENTATION: Final = {"stream", "stream_options", "encoding_format", "user", "metadata"}
"""Members of a question that change only the form of its answer."""

_PIECE: Final = re.compile(r"\s*\S+|\s+")
_DEEPEST: Final = 8


@dataclass(frozen=True, slots=True)
class Ask:
    """
    One question: its *members*, the *model* that is to answer, *now* in seconds since the epoch, *fresh* for a new
    random word of 32 hexadecimal digits.
    """

    members: dict[str, Any]
    model: str
    now: int
    fresh: Callable[[], str]

    @property
    def streams(self) -> bool:
        """Whether a stream is wanted."""
        return self.members.get("stream") is True

    def seed(self, *more: object) -> bytes:
        """A digest of this question and of *more*, 32 bytes."""
        said = {name: value for name, value in self.members.items() if name not in _REPRESENTATION}
        return seed([self.model, said, *map(str, more)])


def seed(value: object) -> bytes:
    """A digest of a JSON value, 32 bytes. The order of members makes no difference."""
    return blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=32).digest()


def prose(source: bytes) -> str:
    """A sentence of ten to forty words that says it is canned."""
    draw = shake_256(source).digest(64)
    words = [_WORDS[byte % len(_WORDS)] for byte in islice(draw, 1, 11 + draw[0] % 31)]
    return f"{OPENING} {' '.join(words)}."


def pieces(text: str) -> list[str]:
    """*text* in the pieces in which it is streamed; each counts as one token."""
    return _PIECE.findall(text)


def tokens(value: object) -> int:
    """About as many tokens as a JSON value has: one for four characters, at least one."""
    return max(1, len(json.dumps(value)) // 4)


def clip(text: str, limit: object) -> tuple[str, bool]:
    """*text* within *limit* tokens (None for no limit), and whether anything was left out."""
    found = pieces(text)
    if not isinstance(limit, int) or len(found) <= limit:
        return text, False
    return "".join(found[:limit]), True


def last_words(messages: object) -> str:
    """The text of the last message if it is the user's, else ``""``."""
    last = messages[-1] if isinstance(messages, list) and messages else messages
    if isinstance(last, str):
        return last
    if not isinstance(last, dict) or last.get("role") != "user":
        return ""
    content = last.get("content")
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content)


def wants_tool(names: list[str], words: str) -> str | None:
    """The tool that *words* ask for: one that they name, or the first where they say "use the tool"."""
    named = (name for name in names if name and name in words)
    return next(named, names[0] if names and "use the tool" in words.lower() else None)


def sample(schema: object, source: bytes, depth: int = 0) -> Any:
    """A value that fits a JSON schema of the plain kind: types, properties, items, enum, const, anyOf."""
    if not isinstance(schema, Mapping) or depth > _DEEPEST:
        return None
    if "const" in schema:
        return schema["const"]
    if options := schema.get("enum"):
        return options[source[depth] % len(options)]
    if choices := schema.get("anyOf"):
        return sample(choices[0], source, depth + 1)
    kind = schema.get("type", "object")
    match kind[0] if isinstance(kind, list) else kind:
        case "object":
            properties = schema.get("properties") or {}
            return {name: sample(inner, seed([name, source.hex()]), depth + 1) for name, inner in properties.items()}
        case "array":
            return [sample(schema.get("items"), seed(["item", source.hex()]), depth + 1)]
        case scalar:
            return _scalar(scalar, source[0])


def _scalar(kind: object, number: int) -> Any:
    values = {"string": _WORDS[number % len(_WORDS)], "integer": number, "number": number / 4, "boolean": number > 99}
    return values.get(str(kind))


def vector(text: object, size: int) -> list[float]:
    """A unit vector of *size* numbers, each exactly a 32-bit float, that stands for *text*."""
    numbers = unpack(f"<{size}h", shake_256(seed(text)).digest(2 * size))
    length = sqrt(sum(number * number for number in numbers)) or 1.0
    return list(unpack(f"<{size}f", pack(f"<{size}f", *(number / length for number in numbers))))
