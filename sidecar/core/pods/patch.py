"""
The difference between two documents as a JSON patch (RFC 6902).

The rule: nothing that is equal is mentioned. Entries of a list that have names (containers, variables, volumes) are
compared by name, so that an entry that is added shifts the others and does not replace them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

PatchOperation = Mapping[str, Any]


def diff(before: Any, after: Any, path: str = "") -> list[PatchOperation]:
    """The operations that make *before* into *after*, in their order."""
    return list(_diff(before, after, path))


def _diff(before: Any, after: Any, path: str) -> Iterator[PatchOperation]:
    if before == after:
        return
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in before.keys() - after.keys():
            yield {"op": "remove", "path": f"{path}/{_escaped(key)}"}
        for key, value in after.items():
            if key not in before:
                yield {"op": "add", "path": f"{path}/{_escaped(key)}", "value": value}
            else:
                yield from _diff(before[key], value, f"{path}/{_escaped(key)}")
    elif _are_named(before) and _are_named(after):
        yield from _diff_named(before, after, path)
    else:
        yield {"op": "replace", "path": path, "value": after}


def _diff_named(before: Sequence[Any], after: Sequence[Any], path: str) -> Iterator[PatchOperation]:
    """As ``_diff``, for lists whose common entries stand in one order."""
    kept, become = ({entry["name"]: entry for entry in entries} for entries in (before, after))
    if [name for name in kept if name in become] != [name for name in become if name in kept]:
        yield {"op": "replace", "path": path, "value": after}
        return
    at = 0
    for entry in before:  # from here on *at* is a place in the list as it is after the operations so far
        if entry["name"] not in become:
            yield {"op": "remove", "path": f"{path}/{at}"}
        else:
            at += 1
    for at, entry in enumerate(after):
        if entry["name"] not in kept:
            yield {"op": "add", "path": f"{path}/{at}", "value": entry}
    for at, entry in enumerate(after):
        if entry["name"] in kept:
            yield from _diff(kept[entry["name"]], entry, f"{path}/{at}")


def _are_named(entries: Any) -> bool:
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        return False
    names = [entry.get("name") for entry in entries if isinstance(entry, Mapping)]
    return len(names) == len(entries) and None not in names and len(set(names)) == len(names)


def _escaped(key: str) -> str:
    """A key in a JSON pointer (RFC 6901, 3)."""
    return key.replace("~", "~0").replace("/", "~1")
