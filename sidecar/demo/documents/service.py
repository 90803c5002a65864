"""
What the stand-in's document services have in common: how a call asks, and what a service makes of it.

The rule: a service is a table of pure functions. Ids and times are arguments.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from sidecar.demo.canned import Json
from sidecar.demo.documents.refusals import bad_parameter, no_model

MODEL: Final = r"[^/:]+"
ID: Final = r"[^/:?]+"

FAILED: Final = (
    "InternalServerError",
    "An unexpected error occurred.",
    ("ContentProcessingFailed", "The document could not be analysed: a canned failure of the demo provider."),
)
"""Code, message and inner error of an analysis that fails."""


@dataclass(frozen=True, slots=True)
class AnalysisAsk:
    """What a call asks for: its *path* and the *model* in it, the members of its *query*, those of its JSON, if any."""

    path: str
    model: str
    query: Mapping[str, str]
    members: Json

    def listed(self, name: str) -> list[str]:
        """The values of a list in the query."""
        return [value for value in self.query.get(name, "").split(",") if value]


@dataclass(frozen=True, slots=True)
class AnalysisTimes:
    """When an analysis was created and last updated: RFC 3339, whole seconds. *expires*: when its result goes."""

    created: str
    updated: str
    expires: str


@dataclass(frozen=True, slots=True)
class Analysis:
    """A finished analysis: its *result*, how many pages (or text records) it is billed for, and at which price."""

    result: Json
    pages: int
    priced: str


@dataclass(frozen=True, slots=True)
class DocumentService:
    """
    One service. *start* and *result* are regular expressions of paths: the model and the rest of the first, the id and
    the part of the second are their groups. *location*: the path of an operation, from the path of its call.

    *check* refuses what the service would refuse. *analyse* gives what is to say of a document's bytes. *running*,
    *succeeded* and *failed*: a poll's body by id and times. *accepted*: the body of the 202, None for an empty one.
    *carries*: the body holds a document; else it is the JSON members themselves.
    """

    name: str
    start: re.Pattern[str]
    result: re.Pattern[str]
    location: Callable[[str, str], str]
    check: Callable[[AnalysisAsk], None]
    analyse: Callable[[bytes, AnalysisAsk], Analysis]
    running: Callable[[str, AnalysisTimes, AnalysisAsk], Json]
    succeeded: Callable[[str, AnalysisTimes, AnalysisAsk, Json], Json]
    failed: Callable[[str, AnalysisTimes, AnalysisAsk], Json]
    accepted: Callable[[str], Json | None] = lambda _: None
    carries: bool = True
    versioned: bool = True
    deletes: bool = True


def check_model(model: str, known: frozenset[str], prefix: str = "prebuilt-") -> None:
    """Refuse a model of the service's own that does not exist. Any other name is a custom model."""
    if model.startswith(prefix) and model not in known:
        raise no_model()


def check_one_of(ask: AnalysisAsk, name: str, known: frozenset[str]) -> None:
    """Refuse a query parameter with a value that is not one of *known*."""
    if ask.query.get(name) and ask.query[name] not in known:
        raise bad_parameter(name, "The value is not supported.")
