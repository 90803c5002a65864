"""
Whether a text is the path of a file, or the secret itself, pasted where its file's path belongs.

The rule: what may be a secret is taken for one, so a message may quote what is plain, and nothing else. Who can look
whether there is such a file knows better, and asks that first.
"""

from __future__ import annotations

import re
from itertools import pairwise

LONGEST_WORD = 11
"""Characters of a file's name that stands alone, without folder and ending; passwords and tokens are longer."""

MOST_CHANGES = 3
"""Between letters and digits in a name without a break: ``eu2024v1``. A random text has more."""

_PREFIX = re.compile(
    r"(?:sk|pk|rk)[-_][\w-]{3}|xox[a-z]-|gh[a-z]_|github_pat_|glpat-|hf_|AKIA|ASIA|AIza|ya29\.|eyJ"
    r"|(?:[Bb]earer|[Bb]asic)\s|-----BEGIN|[{\[\"']"
)
_LINE = re.compile(r"[A-Za-z0-9._-]{1,32}:[A-Za-z0-9+/]{40,}={0,2}\Z")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{40,}={1,2}\Z|[A-Za-z0-9+/]{43}=\Z")
_RUN = re.compile(r"[A-Za-z0-9]{20,}")
_PLAIN = re.compile(r"[A-Za-z0-9 ._@~,+-]{1,255}\Z")
_ODD = re.compile(r"""[!"#$%&'()*:;<=>?\\^`{|}\[\]]""")
_ENDING = re.compile(r"\.(?:cer|conf|crt|env|json|jwt|key|pass|password|pem|secret|token|txt|ya?ml)\Z", re.IGNORECASE)


def is_secret(text: str) -> bool:
    """Whether *text*, which is no file that is here, looks like a secret rather than a path."""
    if not text.isprintable():
        return False  # it is neither
    if _LINE.match(text) or _BASE64.match(text):
        return True
    name = text.rpartition("/")[2]
    if any(_PREFIX.match(part) and not _ENDING.search(part) for part in (text, name)):
        return True
    if any(map(_is_random, _RUN.findall(text))):
        return True
    if "/" in text or _ENDING.search(text) or text in {".", ".."}:
        return False
    return len(text) > LONGEST_WORD or bool(_ODD.search(text))


def is_plain(text: str) -> bool:
    """Whether *text* is a path that a message may quote: absolute, in a folder, or with a known ending."""
    if is_secret(text) or not ("/" in text or _ENDING.search(text)):
        return False
    return all(_PLAIN.match(part) for part in text.split("/") if part)


def _is_random(run: str) -> bool:
    """Whether *run*, letters and digits without a break, changes between the two as no name does."""
    return sum(one.isdigit() != other.isdigit() for one, other in pairwise(run)) > MOST_CHANGES
