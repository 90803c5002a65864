"""
Whether Kubernetes takes a document, by its own schemas (``kubernetes-validate``), for any version.

The rule: one process and one reading of each schema; they are large.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import jsonschema
import kubernetes_validate.utils

kubernetes_validate.utils.schema_contents = cache(kubernetes_validate.utils.schema_contents)

VERSIONS = ("1.27", "1.29", "1.34")

_MOVED = {("CronJob", "batch/v1beta1"): "batch/v1"}
"""Groups that these versions no longer have; the rest of such a document is as it was."""


def problem(document: Any, version: str) -> str:
    """The first thing that Kubernetes of *version* would not take of *document*; ``""`` if it takes all."""
    return next(filter(None, (_problem(each, version) for each in documents(document))), "")


def documents(document: Any) -> Iterator[dict[str, Any]]:
    """The objects in *document*, which may be a list of them."""
    if not isinstance(document, Mapping):
        return
    if document.get("kind") == "List":
        for item in document.get("items") or ():
            yield from documents(item)
    else:
        api = _MOVED.get((document.get("kind", ""), document.get("apiVersion", "")), document.get("apiVersion", ""))
        yield {**document, "apiVersion": api}


def _problem(document: dict[str, Any], version: str) -> str:
    try:
        found = kubernetes_validate.validate(document, version, strict=True)
    except jsonschema.ValidationError as error:
        return f"{'.'.join(map(str, error.path))}: {error.message}"
    assert version == found, "the schemas are those of the version that was asked for"
    return ""
