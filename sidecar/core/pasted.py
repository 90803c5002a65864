"""
Whether a text is the path of a file, or the secret itself, pasted where the path of its file belongs.

The rule: a text that may be a secret counts as one, so a message may quote a plain path and nothing else. Code that can
look whether the file exists does so first.

Secrets in base64 hold slashes, and some begin with one; so a slash alone makes no path. A relative path consists of
lower-case words, or ends like a file name, or begins with ``./``. Each part of an absolute path reads like words.
"""

from __future__ import annotations

import re
from itertools import pairwise

LONGEST_WORD = 11
"""The longest file name without folder and ending, in characters; passwords and tokens are longer."""

LONGEST_NAME = 32
"""The most characters of a part of a relative path."""

MOST_CHANGES = 3
"""The most changes between letters and digits in a name without a break: ``eu2024v1``. A random text has more."""

SHORTEST_RANDOM = 8
"""A part with more characters is judged by itself, whatever stands around it."""

MOST_STRANGE = 12
"""The most characters, all together, in shorter parts that do not read like words."""

KEY_START = re.compile(
    r"(?:sk|pk|rk)[-_][\w-]{3}|xox[a-z]-|gh[a-z]_|github_pat_|glpat-|hf_|AKIA|ASIA|AIza|ya29\.|eyJ"
    r"|(?:[Bb]earer|[Bb]asic)\s|-----BEGIN|[{\[\"']"
)
"""How keys and tokens begin, and how a pasted text with its quotes begins."""

SHORTEST_KEY = 20
"""No key or token of an AI service has fewer characters."""

_BETWEEN = re.compile(r"[*/:@?&=,;\s]+")
_LINE = re.compile(r"[A-Za-z0-9._-]{1,32}:[A-Za-z0-9+/]{40,}={0,2}\Z")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{40,}={1,2}\Z|[A-Za-z0-9+/]{43}=\Z")
_RUN = re.compile(r"[A-Za-z0-9]{20,}")
_PLAIN = re.compile(r"[A-Za-z0-9 ._@~,+-]{1,255}\Z")
_ODD = re.compile(r"""[!"#$%&'()*:;<=>?\\^`{|}\[\]]""")
_ENDING = re.compile(
    r"\.(?:cer|conf|crt|der|env|json|jwks?|jwt|key|p12|pass|password|pem|pfx|pub|secret|token|txt|ya?ml)\Z",
    re.IGNORECASE,
)
_ANCHORED = re.compile(r"/|\.{1,2}/|~/|\.{1,2}\Z")
_LOWER = re.compile(r"[a-z]+(?:[._-][a-z]+)*\Z")
_WORD = re.compile(r"[A-Za-z0-9]+")
_VOWEL = re.compile(r"[aeiouyAEIOUY]")
_UNSPEAKABLE = re.compile(r"[b-df-hj-np-tv-xzB-DF-HJ-NP-TV-XZ]{7}")
_PIECE = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


def is_secret(text: str) -> bool:
    """Whether *text*, which is not an existing file, looks like a secret rather than a path."""
    if not text.isprintable():
        return False  # it is neither
    if _LINE.match(text) or _BASE64.match(text):
        return True
    parts = text.split("/")
    if any(KEY_START.match(part) and not _ENDING.search(part) for part in (text, parts[-1])):
        return True
    if any(map(is_random, _RUN.findall(text))):
        return True
    if _ANCHORED.match(text):
        return _is_strange(parts)
    if _ENDING.search(text):
        return _is_strange(parts[:-1])
    if not any(map(str.isalnum, text)):
        return False
    return not all(_LOWER.match(part) and len(part) <= LONGEST_NAME for part in parts) or (
        len(parts) == 1 and len(text) > LONGEST_WORD
    )


def holds_key(text: str) -> bool:
    """Whether there is something in *text* that looks like a key or a token, whatever *text* is meant to be."""
    return bool(_LINE.match(text) or _BASE64.match(text)) or any(
        len(part) >= SHORTEST_KEY and (KEY_START.match(part) or any(map(is_random, _RUN.findall(part))))
        for part in _BETWEEN.split(text)
    )


def is_plain(text: str) -> bool:
    """Whether *text* is a path that a message may quote: absolute, in a folder, or with a known ending."""
    if is_secret(text) or not ("/" in text or _ENDING.search(text)):
        return False
    return all(_PLAIN.match(part) for part in text.split("/") if part)


def is_random(run: str) -> bool:
    """Whether *run*, letters and digits without a break, changes between the two more often than a name does."""
    return sum(one.isdigit() != other.isdigit() for one, other in pairwise(run)) > MOST_CHANGES


def _is_strange(parts: list[str]) -> bool:
    """Whether the *parts* of a path have what no name has, in one long part or in all together."""
    strange = [len(part) for part in parts if not (_ENDING.search(part) or _reads(part))]
    return max(strange, default=0) >= SHORTEST_RANDOM or sum(strange) > MOST_STRANGE


def _reads(part: str) -> bool:
    """Whether *part* is made of words and numbers, ``OpenAiKey-2024`` say, with nothing odd between."""
    return not _ODD.search(part) and all(map(is_word, _WORD.findall(part)))


def is_word(word: str) -> bool:
    """Whether *word* is written in one case, or in pieces that could be words: ``Open``, ``AI``, ``Key``, ``2024``."""
    if _UNSPEAKABLE.search(word):
        return False
    if word.islower() or word.isupper() or word.isdigit():
        return True  # a long word has been checked as a run
    pieces = _PIECE.findall(word)
    numbers = [piece for piece in pieces if piece.isdigit()]
    return len(numbers) < 3 and len(word) >= 3 * len(pieces) and all(map(_could_be_word, pieces))


def _could_be_word(piece: str) -> bool:
    """Whether *piece* is a number, an acronym (``AI``, ``Gpt``), or has a vowel."""
    if piece.isdigit():
        return True
    return 1 < len(piece) < 6 if piece.isupper() else 1 < len(piece) < 4 or bool(_VOWEL.search(piece[1:]))
