"""The list of metrics in the documentation is the one in the code."""

from __future__ import annotations

from pathlib import Path

from sidecar.sinks.table import reference

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_page_is_generated():
    """``docs/metrics.md`` is what the metrics table says."""

    assert page() == PAGE.read_text()


def page() -> str:
    """The whole page."""
    return (
        "# Metrics\n\n"
        "<!-- Generated from sidecar/sinks/metrics.py; `python -m tests.sinks.test_reference` writes it. -->\n\n"
        f"{reference()}\nHit ratio = (hits + stale + collapsed) / (those + miss), from `sidecar_requests_total`.\n"
    )


if __name__ == "__main__":
    PAGE.write_text(page())
