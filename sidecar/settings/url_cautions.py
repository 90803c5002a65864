"""
URLs and paths that end in what clients add to them.

The rule: a caution, never a problem: a gateway may really want ``/v1/v1``.
"""

from __future__ import annotations

from collections.abc import Iterator

from sidecar.settings.build import dialect_of, ways
from sidecar.settings.problems import Path
from sidecar.settings.reader import ParsedSettings


def doubled(reading: ParsedSettings) -> Iterator[tuple[Path, str]]:
    """Regions that would get it twice, and services whose own path would remove it from the calls."""
    for name, said in reading.values.get("services", {}).items():
        dialect = dialect_of(name, said)
        added = () if dialect is None else (dialect.root,) if dialect.root else dialect.roots
        prefix = ways(name, said).path
        end = _end(prefix, added)
        if end:
            text = (
                f"ends in {end}, with which the calls of this API begin; below it none is recognised, so none is cached"
            )
            yield ("services", name, "path"), f"{text}; remove {end} here, and leave it in the client's base URL"
        for at, region in enumerate(said.get("regions", ())):
            end = _end(region.get("url", "").partition("://")[2].rstrip("/"), added)
            if end:
                text = f"ends in {end}, which every call brings along, so that it would be sent as {end}{end}/…"
                yield ("services", name, "regions", at, "url"), f"{text}; remove it here"


def _end(text: str, added: tuple[str, ...]) -> str:
    """Which of *added* a URL or path ends in, ``""`` for none."""
    return next((end for end in added if text.endswith(end)), "")
