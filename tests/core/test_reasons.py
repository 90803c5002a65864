"""
Every reason that a caller is told stands in the table, with its meaning and remedy.

``python -m tests.core.test_reasons`` writes the page.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sidecar.core.cache.policy import Reason
from sidecar.core.meaning import Meaning, Where
from sidecar.core.reasons import REASONS
from sidecar.core.reasons_page import reference
from sidecar.settings.schema import SCHEMA
from sidecar.settings.shapes import Either, Items, Named, Table
from tests.told_reasons import reasons

PAGE = Path(__file__).parents[2] / "docs" / "reasons.md"


def test_page_is_generated():
    """``docs/reasons.md`` is what the table says."""
    assert reference() == PAGE.read_text()


def test_every_reason_has_a_row():
    """All that the code can give, and none besides."""
    assert reasons() == REASONS.keys()


def test_the_search_finds_each_kind():
    """The test above would say nothing if the search found nothing: one of each place where reasons come from."""
    expected = {
        Reason.RANGE, "lone-surrogate", "paused", "background", "container", "prompt-template", "images", "file-id",
        "route-limit", "host-missing", "unknown-service", "memory", "stale-if-error",
    }  # fmt: skip

    assert expected <= reasons()


@pytest.mark.parametrize("told", REASONS.values(), ids=REASONS.keys())
def test_sentences(told: Meaning):
    """Whole sentences, which a table can hold."""
    for text in (told.meaning, told.remedy):
        assert re.fullmatch(r"[A-Z`].*[.?]", text)
        assert "|" not in text
    assert set(told.where) <= set(Where)
    assert told.where


def test_keys_that_remedies_name():
    """A key that a sentence names is one of the configuration."""
    text = " ".join(f"{told.meaning} {told.remedy}" for told in REASONS.values())
    named = set(re.findall(r"`((?:cache|limits|listen|state)\.[a-z_.]+)", text))

    assert "limits.collect" in named
    assert set() == {name for name in named if name.rstrip(":") not in _keys(SCHEMA)}


def _keys(value, path=""):
    """Every key by its dotted path; those of a route also as within it."""
    value = value.table if isinstance(value, Either) else value
    if isinstance(value, Items | Named):
        return _keys(value.value, "")
    found = set()
    if isinstance(value, Table):
        for name, key in value.keys.items():
            where = f"{path}.{name}" if path else name
            found |= {where} | _keys(key.value, where)
    return found


if __name__ == "__main__":
    PAGE.write_text(reference())
