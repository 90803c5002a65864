"""
The page of reasons in the documentation, made from ``reasons``.

The rule: nothing but where reasons are told is said here; what they mean stands in the table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sidecar.core.meaning import Where
from sidecar.core.reasons import REASONS

_HEAD = """\
# Reasons

<!-- Generated from sidecar/core/reasons.py; `python -m tests.core.test_reasons` writes it. -->

Why a call was not looked up, why its answer was not kept, or why the sidecar answered itself. `sidecar explain
REQUEST.http` names all reasons of a call, and what would make it a hit.

| shown for | where it stands |
|---|---|
%s
| reason | shown for | what it means | what to do |
|---|---|---|---|
"""

_PLACES: Mapping[Where, tuple[str, ...]] = {
    Where.HIT: ("`Cache-Status: sidecar; hit; …; detail=REASON`",),
    Where.BYPASS: (
        "`Cache-Status: sidecar; fwd=bypass; detail=REASON`, the first where there are several",
        "the log's `reason`",
        "`sidecar_bypass_total{reason}`",
    ),
    Where.UNKEPT: (
        "the log's `reason`",
        "`sidecar_not_stored_total{reason}`",
        "the caller sees `sidecar; fwd=miss` without `stored`, with `detail=fallback` for that alone",
    ),
    Where.ERROR: ("`Cache-Status: sidecar; detail=REASON`", "the error's `code`", "the log's `cause`"),
}


def reference() -> str:
    """The whole page, Markdown."""
    places = "".join(f"| {where} | {'; '.join(stands)} |\n" for where, stands in _PLACES.items())
    return _HEAD % places + "".join(f"{row}\n" for row in _rows())


def _rows() -> Iterator[str]:
    for code, entry in sorted(REASONS.items()):
        yield f"| `{code}` | {', '.join(entry.where)} | {entry.meaning} | {entry.remedy} |"
