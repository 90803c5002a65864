"""
Recognises plain-text errors of proxies and gateways between a caller and a service.

The rule: such a text is recognised by its words, and only if it is short. A person may have said just that; then the
answer is only not kept.
"""

from __future__ import annotations

import re
from typing import Final

MOST_CHARACTERS: Final = 300
MOST_LINES: Final = 2

_WORDS: Final = (
    # Envoy, Kong and nginx of those behind them
    r"upstreams? (?:server|service|host|request|response|connect|connection|max|error|prematurely|time|timed|is)\b",
    r"(?:healthy|live|available|the) upstreams?\b", r"ring-balancer\b", r"no available server\b",
    # Go, package net and what is built on it
    r"dial (?:tcp|udp|unix)\b", r"context (?:deadline exceeded|cancell?ed)\b", r"i/o timeout\b", r"no such host\b",
    r"eof\b", r"tls handshake\b", r"x509\b", r"client\.timeout\b",
    # the system's errors, as C, Python and Java word them, and as Node names them
    r"connection (?:was )?(?:refused|reset|aborted|closed|timed out|time-?out|error|failed)\b", r"broken pipe\b",
    r"no route to host\b", r"network is unreachable\b", r"name or service not known\b", r"name resolution\b",
    r"e(?:connrefused|connreset|connaborted|notfound|timedout|pipe|ai_again|hostunreach|netunreach)\b",
    r"socket hang up\b", r"getaddrinfo\b", r"fetch failed\b", r"certificate (?:verify|has expired|is not)\b",
    # HTTP's phrases, and what gateways and services make of them
    r"bad gateway\b", r"gateway time-?out\b", r"internal (?:server )?error\b", r"server error\b",
    r"service (?:is )?(?:temporarily |currently )?unavailable\b", r"temporarily unavailable\b", r"not authorized\b",
    r"rate[- ]limit(?:s|ed|ing)?\b", r"too many (?:requests|connections)\b", r"quota (?:exceeded|reached)\b",
    r"(?:request|operation|connection|connect|read|response) (?:has )?(?:timed out|time-?out)\b", r"overloaded\b",
    r"unauthori[sz]ed\b", r"(?:access|permission) denied\b", r"invalid (?:api[- ]key|token|credentials|response)\b",
    r"authentication (?:failed|required)\b", r"(?:error|exception): ",
    r"(?:http|status|error|code)(?:/\d\.\d)?(?: code)?[:=]? ?[45]\d\d\b",
)  # fmt: skip

_VOCABULARY: Final = re.compile(r"\b(?:" + "|".join(f"(?:{word})" for word in _WORDS) + ")", re.IGNORECASE)
"""Each word has a bounded length, so the time grows only with the text."""


def complains(text: str) -> bool:
    """Whether *text* reads like an error of a proxy or gateway."""
    said = text.strip()
    if len(said) > MOST_CHARACTERS or len(said.splitlines()) > MOST_LINES:
        return False
    return _VOCABULARY.search(said) is not None
