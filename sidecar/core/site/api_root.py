"""
The root of an API, below which all its paths lie, and calls that lack it or have it twice.

The rule: a path counts as wrong only if that is certain: its service is the vendor itself, whose tables do not know the
path, but know it with the API's root added, or removed once. Behind a gateway a path may have a meaning of its own.
"""

from __future__ import annotations

from sidecar.core.rules import Service


def meant(service: Service, method: bytes, path: str) -> str | None:
    """
    The path that a call means by *path*, which the tables of *service* do not know: with the root added, or removed
    once; None if *path* is not certainly wrong.
    """
    dialect = service.dialect
    root = dialect.root
    if not root or method == b"DELETE":
        return None  # the tables would accept any DELETE
    twice = path.startswith(f"{root}{root}/")
    if path.startswith(f"{root}/") and not twice:
        return None
    found = path.removeprefix(root) if twice else f"{root}{path}"
    if dialect.locate(method, found) is None or not service.own:
        return None
    return None if any(_has_path(region.url) for region in service.regions) else found


def _has_path(url: str) -> bool:
    return bool(url.partition("://")[2].partition("/")[2])
