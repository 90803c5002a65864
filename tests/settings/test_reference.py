"""
The reference page follows the schema.

``python -m tests.settings.test_reference`` writes it.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from sidecar.core.dialect import Kind
from sidecar.core.rules import Limits
from sidecar.settings.builtin import ROUTES
from sidecar.settings.reference import reference
from sidecar.settings.schema import SCHEMA

PAGE = Path(__file__).parents[2] / "docs/configuration.md"


def test_the_page_is_the_schemas():
    """docs/configuration.md is what reference() writes."""
    assert reference() == PAGE.read_text()


def test_every_limit_has_a_key():
    """No bound of the process is out of a configuration's reach."""
    assert {field.name.removesuffix("_seconds") for field in fields(Limits)} == SCHEMA.keys["limits"].value.keys.keys()


def test_every_kind_of_endpoint_has_one_built_in_route():
    """Each kind stands in one route; the last route takes what has none."""
    kinds = sorted(kind for route in ROUTES for kind in route.match.kinds)

    assert sorted(Kind) == kinds
    assert not ROUTES[-1].match.kinds


if __name__ == "__main__":
    PAGE.write_text(reference())
