"""A reader of JSON patches, to see where a patch leads."""

from __future__ import annotations

from copy import deepcopy
from typing import Any


def applied(document: Any, operations: list[Any]) -> Any:
    """*document* after *operations* (RFC 6902, 4), by a reader of our own."""
    whole = {"": deepcopy(document)}
    for operation in operations:
        *steps, last = ["", *operation["path"].split("/")[1:]]
        at: Any = whole
        for step in steps:
            at = at[int(step)] if isinstance(at, list) else at[step.replace("~1", "/").replace("~0", "~")]
        key = int(last) if isinstance(at, list) else last.replace("~1", "/").replace("~0", "~")
        match operation["op"]:
            case "add" if isinstance(at, list):
                at.insert(key, deepcopy(operation["value"]))
            case "add" | "replace":
                assert operation["op"] == "add" or isinstance(at, list) or key in at
                at[key] = deepcopy(operation["value"])
            case "remove":
                del at[key]
    return whole[""]
