"""
The name of a model as a record tells it.

The rule: callers write it, and some paste a key there; what may be one is not told. Names of models are words, versions
and dates; a fine-tuned one ends with a few random letters, and no more than that.
"""

from __future__ import annotations

import re

from sidecar.core.pasted import KEY_START, is_random, is_word

HIDDEN = "(hidden: looks like a key)"
"""What is told instead."""

LONGEST_RANDOM = 12
"""Characters without a break that may be random; keys have more."""

MOST_RANDOM = 16
"""Such characters in all."""

_WORD = re.compile(r"[A-Za-z0-9]+")
_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)


def shown_model(model: str) -> str:
    """*model*, or ``HIDDEN`` where it looks like a key."""
    return HIDDEN if _is_key(model) else model


def _is_key(model: str) -> bool:
    if KEY_START.match(model.strip()) or _UUID.search(model):
        return True
    lengths = [len(word) for word in _WORD.findall(model) if not is_word(word) or is_random(word)]
    return max(lengths, default=0) > LONGEST_RANDOM or sum(lengths) > MOST_RANDOM
