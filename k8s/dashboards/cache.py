"""
The dashboard about the cache: hit ratio by tier and by route, and why calls miss.

``python k8s/dashboards/cache.py`` writes ``cache.json`` beside this file. The rule: each panel has a sentence that says
what to do when it looks wrong, and takes the namespaces that were chosen, and the routes where its metric has them.
"""

from __future__ import annotations

import json
from pathlib import Path

from grafana_foundation_sdk.builders import bargauge, common, stat, timeseries
from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, QueryVariable, Row
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement, StackingMode, VizOrientation
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

FILE = Path(__file__).with_suffix(".json")

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")

LAST = common.ReduceDataOptions().calcs(["lastNotNull"])

HITS = "hit_memory|hit_redis|stale|collapsed"
"""Outcomes of calls that were answered without a call of their own; docs/metrics.md defines the ratio."""

CHOSEN = 'namespace=~"$namespace"'
ROUTED = f'{CHOSEN}, route=~"$route"'

HIT = f'sidecar_requests_total{{{ROUTED}, outcome=~"{HITS}"}}'
LOOKED_UP = f'sidecar_requests_total{{{ROUTED}, outcome=~"{HITS}|miss"}}'


def now(of: str) -> str:
    """The rate of a counter at each moment that is drawn."""
    return f"rate({of}[$__rate_interval])"


def whole(of: str) -> str:
    """The increase of a counter over all the time that is shown."""
    return f"increase({of}[$__range])"


def lines(title: str, advice: str, query: str, legend: str, unit: str, *, stacked: bool = False) -> timeseries.Panel:
    """A panel of lines over time; *stacked* where they add up."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(advice)
        .datasource(SOURCE)
        .unit(unit)
        .min(0)
        .span(12)
        .height(8)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .with_target(Dataquery().ref_id("A").datasource(SOURCE).expr(query).legend_format(legend).range())
    )
    if stacked:
        panel.fill_opacity(30).stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    return panel


def bars(title: str, advice: str, query: str, legend: str) -> bargauge.Panel:
    """A panel that compares counts of the time that is shown, the largest first."""
    return (
        bargauge.Panel()
        .title(title)
        .description(advice)
        .datasource(SOURCE)
        .unit("short")
        .min(0)
        .span(12)
        .height(8)
        .orientation(VizOrientation.HORIZONTAL)
        .reduce_options(LAST)
        .with_target(
            Dataquery().ref_id("A").datasource(SOURCE).expr(f"sort_desc(topk(10, {query}))").legend_format(legend)
            .instant()
        )
    )  # fmt: skip


def variable(name: str, label: str, query: str) -> QueryVariable:
    """Values to choose from; at first all are chosen, those that a series does not name included."""
    return (
        QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(VariableOption(selected=True, text="All", value="$__all"))
    )


def ratio() -> stat.Panel:
    """The number on top."""
    return (
        stat.Panel()
        .title("Hit ratio")
        .description(
            "The share of looked-up calls that were answered without a call of their own. If it fell, see below which "
            "route fell, and ask what changed in its prompts, its rules or its share of the traffic."
        )
        .datasource(SOURCE)
        .unit("percentunit")
        .min(0)
        .max(1)
        .span(6)
        .height(8)
        .reduce_options(LAST)
        .with_target(
            Dataquery().ref_id("A").datasource(SOURCE).instant()
            .expr(f"(sum({whole(HIT)}) or vector(0)) / sum({whole(LOOKED_UP)})")
        )
    )  # fmt: skip


def dashboard() -> Dashboard:
    """All of it."""
    return (
        Dashboard("AI sidecar: cache")
        .uid("ai-sidecar-cache")
        .description("How much of the AI traffic the sidecars answer themselves, and why not more.")
        .tags(["ai-sidecar"])
        .refresh("1m")
        .time("now-6h", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(variable("namespace", "Namespace", "label_values(sidecar_build_info, namespace)"))
        .with_variable(variable("route", "Route", f"label_values(sidecar_requests_total{{{CHOSEN}}}, route)"))
        .with_row(Row("Hit ratio"))
        .with_panel(ratio())
        .with_panel(
            lines(
                "Hit ratio by tier",
                "Stacked, the parts make up the hit ratio: `hit_memory` and `hit_redis` are the two tiers, `stale` was "
                "served while it was renewed, `collapsed` waited for the same call of another caller. If `hit_redis` "
                "is missing, see whether the sidecars use Redis; if `hit_memory` is small, see the evictions.",
                f"sum by (outcome) ({now(HIT)}) / ignoring (outcome) group_left () sum({now(LOOKED_UP)})",
                "{{outcome}}",
                "percentunit",
                stacked=True,
            ).span(18)
        )
        .with_panel(
            lines(
                "Hit ratio by route",
                "If one route is low, run `sidecar explain` on two of its requests that should be equal: it shows what "
                "in them differs. If its answers only expire too soon, raise the route's `cache.ttl`.",
                f"(sum by (route) ({now(HIT)}) or 0 * sum by (route) ({now(LOOKED_UP)})) "
                f"/ sum by (route) ({now(LOOKED_UP)})",
                "{{route}}",
                "percentunit",
            )
        )
        .with_panel(
            lines(
                "Requests by outcome",
                "`bypass` was not looked up: see the reasons below. `error`, `fallback` and `stale_error` mean that "
                "services fail: see `sidecar region ls`. If nothing is shown, no traffic arrives: see "
                "`sidecar inject --report` for the workload.",
                f"sum by (outcome) ({now(f'sidecar_requests_total{{{ROUTED}}}')})",
                "{{outcome}}",
                "reqps",
                stacked=True,
            )
        )
        .with_row(Row("Why calls miss"))
        .with_panel(
            bars(
                "Why calls were not looked up",
                "docs/reasons.md says of each reason what to do. Begin with the longest bar; `route-off` is a route "
                "whose rules switch its cache off.",
                f"sum by (reason) ({whole(f'sidecar_bypass_total{{{CHOSEN}}}')})",
                "{{reason}}",
            )
        )
        .with_panel(
            bars(
                "Why answers were not stored",
                "docs/reasons.md says of each reason what to do. Many of one service and reason mean that its answers "
                "are errors, are cut short, or have another form than the sidecar expects.",
                f"sum by (service, reason) ({whole(f'sidecar_not_stored_total{{{CHOSEN}}}')})",
                "{{service}}: {{reason}}",
            )
        )
        .with_row(Row("Tiers"))
        .with_panel(
            lines(
                "Evictions from memory",
                "Entries that leave memory for lack of room. If they are many and `hit_redis` is high, a larger "
                "`cache.memory.max_bytes` (in a pod: the annotation `ai-sidecar.dev/memory`) saves look-ups in Redis.",
                f"sum by (namespace) ({now(f'sidecar_cache_evictions_total{{{CHOSEN}}}')})",
                "{{namespace}}",
                "cps",
            )
        )
        .with_panel(
            lines(
                "Sidecars that use Redis",
                "Below 100 % some sidecars have stopped asking Redis for now, and share nothing: see "
                "docs/runbook-redis.md. If a namespace is missing here, its sidecars have no Redis configured.",
                f"avg by (namespace) (sidecar_redis_up{{{CHOSEN}}})",
                "{{namespace}}",
                "percentunit",
            ).max(1)
        )
    )


def text() -> str:
    """The file. Panels are numbered in their order, so that links to them stay while none comes or goes."""
    built = dashboard().build()
    for number, panel in enumerate(built.panels or (), start=1):
        panel.id_val = number
    return json.dumps(built, cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
