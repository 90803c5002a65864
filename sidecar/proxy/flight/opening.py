"""
The head of an answer, as a flight's readers receive it.

The rule: it is final. Any other answer that could serve has been looked for before.
"""

from __future__ import annotations

from msgspec import Struct

from sidecar.core.cache.policy import Serve
from sidecar.core.model import Form, Outcome, Pairs
from sidecar.core.request.operation import Started


class Opening(Struct, frozen=True, gc=False):
    """
    A *status* and what belongs to it. *pairs* is for the caller whose request was sent, *shared* for all other callers.
    *length*: the body's size, if the upstream gave it. *usage*: a stream shows its token counts. *kept*: the answer
    will be stored if it is whole at its end. *found*: a stored entry that serves instead of a service's answer.
    *outcome*: how that came about; FALLBACK for a fallback answer, from a *model* that was not asked for, or from a
    file. *blame*: who caused the error that the answer reports, ``""`` if it reports none. *started*: the call has
    started this operation, or has *joined* one that another process started; the flight's body is its result.
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
    started: Started | None = None
    joined: bool = False
