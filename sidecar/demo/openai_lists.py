"""
The stand-in for OpenAI's embeddings, moderations and list of models.

The rule: each has one form, and none is streamed.
"""

from __future__ import annotations

from base64 import b64encode
from struct import pack
from typing import Final

from sidecar.demo.canned import Ask, Json, seed, tokens, vector

MODELS: Final = ("gpt-4o", "gpt-4o-mini", "gpt-5-mini", "text-embedding-3-small", "text-embedding-3-large")

_SIZES: Final = {"text-embedding-3-large": 3072}
_SIZE: Final = 1536
_LARGEST: Final = 4096

_CATEGORIES: Final = (
    "harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent", "self-harm",
    "self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors", "violence", "violence/graphic",
)  # fmt: skip


def embeddings(ask: Ask) -> Json:
    """A vector for each input, as numbers or as base64 of little-endian 32-bit floats. It depends only on the text."""
    given = ask.members.get("input", "")
    inputs = given if isinstance(given, list) and given and not isinstance(given[0], int) else [given]
    size = min(ask.members.get("dimensions") or _SIZES.get(ask.model, _SIZE), _LARGEST)
    as_text = ask.members.get("encoding_format") == "base64"
    found = []
    for index, text in enumerate(inputs):
        numbers = vector([ask.model, text], size)
        embedding = b64encode(pack(f"<{size}f", *numbers)).decode() if as_text else numbers
        found.append({"object": "embedding", "index": index, "embedding": embedding})
    read = tokens(given)
    usage = {"prompt_tokens": read, "total_tokens": read}
    return {"object": "list", "data": found, "model": ask.model, "usage": usage}


def moderations(ask: Ask) -> Json:
    """A verdict on each input. An input that contains ``flag me`` is flagged as violence."""
    given = ask.members.get("input", "")
    return {
        "id": f"modr-{ask.fresh()}",
        "model": ask.model or "omni-moderation-latest",
        "results": [_verdict(text) for text in (given if isinstance(given, list) else [given])],
    }


def _verdict(text: object) -> Json:
    flagged = "flag me" in str(text)
    scores = {name: seed([name, text])[0] / 100_000 for name in _CATEGORIES}
    return {
        "flagged": flagged,
        "categories": {name: flagged and name == "violence" for name in _CATEGORIES},
        "category_scores": scores | ({"violence": 0.98} if flagged else {}),
        "category_applied_input_types": {name: ["text"] for name in _CATEGORIES},
    }


def models(now: int) -> Json:
    """The models that the demo lists. It also answers calls of other models."""
    return {"object": "list", "data": [model(name, now) for name in MODELS]}


def model(name: str, now: int) -> Json:
    """One model."""
    return {"id": name, "object": "model", "created": now - now % 86_400, "owned_by": "sidecar-demo"}
