"""
The name of a model as a record shows it.

The rule: callers write the name, and some paste a key there; a name that may be a key is not shown. Names of models
consist of words, versions and dates; a fine-tuned one ends with a few random letters.
"""

from __future__ import annotations

import re

from sidecar.core.pasted import KEY_START, is_random, is_word

HIDDEN = "(hidden: looks like a key)"
"""Shown instead of such a name."""

LONGEST_RANDOM = 12
"""The most characters in a row that may look random; keys have more."""

MOST_RANDOM = 16
"""The most such characters in all."""

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
