"""The list of metrics in the documentation is the one in the code."""

from __future__ import annotations

from pathlib import Path

from sidecar.sinks.series import EACH_ROUTE, EACH_SERVICE, SERIES
from sidecar.sinks.table import reference

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_page_is_generated():
    """``docs/metrics.md`` is what the metrics table says."""

    assert page() == PAGE.read_text()


def page() -> str:
    """The whole page."""
    return (
        "# Metrics\n\n"
        "<!-- Generated from sidecar/sinks/table.py; `python -m tests.sinks.test_reference` writes it. -->\n\n"
        f"{reference()}\nHit ratio = (hits + stale + collapsed) / (those + miss), from `sidecar_requests_total`.\n\n"
        "## How many series\n\n"
        f"A pod exposes at most {SERIES} + {EACH_ROUTE} x routes + {EACH_SERVICE} x services series, by the "
        "configuration in use, built-in routes and services included. The series of the configured services and of "
        "every class of errors have their place from the start: a failure is told with its class and its service "
        "however much traffic came before it, and with its route.\n\n"
        "What finds no room is counted under `other` in one of its labels, and if need be in a second, so that sums "
        "stay right. Given up first is what tells least: the outcome of a request, the region of a call, the reason "
        "why an answer was not stored. `sidecar_series_overflow_total` counts the series that found no room.\n\n"
        "The place of a route together with its service is kept as long as there is room for all such pairs; a route "
        "that names its service (`match: {service: NAME}`) needs one pair, any other as many as there are services. "
        "Where there is no room for all, the errors keep both and the successes of a route give up the service; with "
        "very many pairs the errors do, too. The service of each error stands in `sidecar_errors_total` and "
        "`sidecar_upstream_responses_total` all the same.\n"
    )


if __name__ == "__main__":
    PAGE.write_text(page())
