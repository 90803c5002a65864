"""
A URL without the signature that gives access to what is behind it.

The rule: only a shared access signature of Azure Storage is cut out, as a whole, and only where it is certainly one.
All else of a URL counts as it is written.
"""

from __future__ import annotations

import re

_SIGNATURE = frozenset({
    "sv", "se", "st", "sr", "sp", "sig", "skoid", "sktid", "skt", "ske", "sks", "skv", "spr", "sip",
})  # fmt: skip
"""Members of a shared access signature: to whom, until when and for what it gives access."""

_VERSION = re.compile(r"[?&]sv=[0-9]{4}-[0-9]{2}-[0-9]{2}(?=[&#]|\Z)")
_PROOF = re.compile(r"[?&]sig=[^&#]")


def unsigned(url: str) -> str:
    """*url* without its shared access signature."""
    if not (_VERSION.search(url) and _PROOF.search(url)):
        return url
    place, _, rest = url.partition("?")
    query, mark, fragment = rest.partition("#")
    kept = [member for member in query.split("&") if member.partition("=")[0] not in _SIGNATURE]
    return f"{place}{'?' if kept else ''}{'&'.join(kept)}{mark}{fragment}"
