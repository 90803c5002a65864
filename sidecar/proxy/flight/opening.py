"""
The head of an answer, as a flight's readers get it.

The rule: it is final. Whatever could have been served in its place has been looked for before.
"""

from __future__ import annotations

from msgspec import Struct

from sidecar.core.cache.policy import Serve
from sidecar.core.model import Form, Outcome, Pairs


class Opening(Struct, frozen=True, gc=False):
    """
    A *status* and what belongs to it. *pairs* is for the caller whose request was sent, *shared* for everybody else.
    *length* is the body's size where the upstream said it; *usage* tells that a stream shows its token counts. *kept*
    tells that the answer will be stored if it turns out whole. *found* is an entry that serves instead of an answer of
    the service, and *outcome* how that came about; FALLBACK where something else stands in, a *model* that was not
    asked for, or a file. *blame*: whose error the answer tells of, ``""`` where it is none.
    """

    status: int
    pairs: Pairs
    shared: Pairs
    form: Form
    length: int | None = None
    kept: bool = False
    region: str = ""
    found: Serve | None = None
    outcome: Outcome = Outcome.HIT_REDIS
    usage: bool = True
    model: str = ""
    blame: str = ""
