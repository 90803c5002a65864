"""
What the demo says at its end: what happened, and where to look next.

The rule: every number is read from where it was counted (the sidecar's own ``/metrics``, the stand-in's counter, the
answers themselves), and how it was made stands beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from sidecar.demo.money import cost, dollars, page_cost
from sidecar.demo.workload import DemoAnswer, Manner

_SERVED = {
    "hit_memory": "answered from memory",
    "hit_redis": "answered from Redis",
    "stale": "answered stale",
    "stale_error": "stale after an error",
    "collapsed": "shared a call on its way",
}
"""The outcomes that need no upstream call of their own."""

_ALWAYS_SHOWN = frozenset({"hit_memory", "collapsed"})


@dataclass(frozen=True, slots=True)
class Totals:
    """What the metrics say: requests by outcome, bypasses by reason, and seconds that callers did not have to wait."""

    outcomes: Mapping[str, int]
    reasons: Mapping[str, int]
    seconds_saved: float

    @property
    def calls(self) -> int:
        """All requests."""
        return sum(self.outcomes.values())


@dataclass(slots=True)
class Bill:
    """
    Simulated nano-dollars: *spent* on answers that were fetched, *saved* by answers that were not. *documents* counts
    the analyses of documents that were answered, *pages* theirs.
    """

    spent: int = 0
    saved: int = 0
    documents: int = 0
    pages: int = 0

    def book(self, answer: DemoAnswer) -> None:
        """Add one answer."""
        if answer.pages:
            amount = page_cost(answer.model, answer.pages)
            self.documents += 1
            self.pages += answer.pages
        else:
            amount = cost(answer.model, prompt=answer.prompt, completion=answer.completion)
        if answer.manner in {Manner.MEMORY, Manner.SHARED}:
            self.saved += amount
        else:
            self.spent += amount


class DemoUrls(NamedTuple):
    """The URLs to look at next, without trailing slash; ``""`` where no service speaks that API."""

    openai: str
    health: str
    documents: str = ""


def totals(exposition: str, without: frozenset[str] = frozenset()) -> Totals:
    """
    Read the metrics of a process; of requests and their times, those to other services than *without*.

    Time saved: each request that was served counts the average time of a miss of its own service, less what it took.
    """
    outcomes: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    counts: dict[tuple[str, str], float] = {}
    sums: dict[tuple[str, str], float] = {}
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            labels = sample.labels
            if labels.get("service") in without:
                continue
            match sample.name:
                case "sidecar_requests_total":
                    outcomes[labels["outcome"]] += int(sample.value)
                case "sidecar_bypass_total":
                    reasons[labels["reason"]] += int(sample.value)
                case "sidecar_request_duration_seconds_count":
                    counts[labels["service"], labels["outcome"]] = sample.value
                case "sidecar_request_duration_seconds_sum":
                    sums[labels["service"], labels["outcome"]] = sample.value
                case _:
                    pass
    saved = 0.0
    for (service, outcome), count in counts.items():
        if outcome in _SERVED and (misses := counts.get((service, "miss"))):
            saved += max(0.0, count * sums[service, "miss"] / misses - sums[service, outcome])
    return Totals(outcomes, reasons, saved)


def happened(total: Totals, bill: Bill, upstream_calls: int, *, documents: bool = False) -> Iterator[str]:
    """
    The numbers, a line each. *upstream_calls* is what the provider counted. *documents*: theirs follow, and are not
    among these.
    """
    calls = total.calls
    yield "What happened"
    yield _line("calls made", str(calls), "without the documents, which follow" if documents else "")
    for outcome, words in _SERVED.items():
        if (count := total.outcomes.get(outcome, 0)) or outcome in _ALWAYS_SHOWN:
            yield _line(words, str(count), f"{count / max(1, calls):.0%}")
    yield _line("fetched (miss)", str(total.outcomes.get("miss", 0)), "the first call of each kind")
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(total.reasons.items()))
    yield _line("passed through (bypass)", str(total.outcomes.get("bypass", 0)), reasons)
    if failed := total.outcomes.get("error", 0):
        yield _line("failed", str(failed), "see the log lines above")
    yield _line("upstream calls", str(upstream_calls), f"of {calls}; counted by the stand-in")
    yield _line("waiting time saved", f"{total.seconds_saved:.1f} s", "per hit an average miss of its service, less")
    yield _line("", "", "its own time; from /metrics")
    whole = dollars(bill.spent + bill.saved)
    yield _line("simulated money saved", dollars(bill.saved), f"of {whole}: list prices for the tokens of")
    yield _line("", "", "answers without a call; nobody was billed")


class DocumentCounts(NamedTuple):
    """What the stand-in did: how many analyses of how many documents, their pages, and simulated nano-dollars."""

    analyses: int
    documents: int
    pages: int
    spent: int


def documents_happened(bill: Bill, did: DocumentCounts) -> Iterator[str]:
    """The numbers of the documents, a line each. *bill* is what was asked for, *did* what the provider counted."""
    whole = bill.spent + bill.saved
    yield "Documents: a call and the polls for its result count as one analysis"
    yield _line("analyses asked for", str(bill.documents), "as base64, as bytes, and in multipart forms")
    yield _line("analyses done", str(did.analyses), f"of {did.documents} documents; counted by the stand-in")
    yield _line("pages not analysed", str(bill.pages - did.pages), f"of {bill.pages}")
    yield _line("simulated money saved", dollars(whole - did.spent), f"of {dollars(whole)}: list prices for pages;")
    yield _line("", "", "nobody was billed")


def try_it(places: DemoUrls) -> Iterator[str]:
    """Where to look next."""
    yield "Try it: the proxy stays up, any key works, the same call twice shows a hit"
    if places.openai:
        yield f"  export OPENAI_BASE_URL={places.openai}/v1 OPENAI_API_KEY=demo"
        yield "  export NO_PROXY=127.0.0.1,localhost"
        yield ""
        yield "  from openai import OpenAI"
        yield '  ask = dict(model="gpt-4o", temperature=0, messages=[{"role": "user", "content": "Hello"}])'
        yield "  print(OpenAI().chat.completions.create(**ask).choices[0].message.content)"
        yield ""
        yield f"  curl -i {places.openai}/v1/chat/completions \\"
        yield "    -H 'authorization: Bearer demo' -H 'content-type: application/json' \\"
        yield """    -d '{"model": "gpt-4o", "temperature": 0, "messages": [{"role": "user", "content": "Hello"}]}'"""
        yield ""
    if places.documents:
        yield f"  documents  {places.documents}   endpoint for the SDKs of Azure's document services"
    yield f"  metrics    {places.health}/metrics"
    yield f"  readiness  {places.health}/readyz?verbose"
    yield "  stop       Ctrl-C"


def _line(name: str, number: str, words: str = "") -> str:
    return f"  {name:<24} {number:>7}  {words}".rstrip()
