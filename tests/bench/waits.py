"""
The row about waits: a region that throttles, called by the real SDKs directly and through the sidecar at once.

The rule: an SDK is timed as its users see it, with its own sleeps, until its exception is there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anthropic
import openai

from tests.bench.lab import Lab, Pace, Row, Sidecar, at

_SLACK = 0.5
_HOPELESS = 120  # seconds above which nobody shall wait, however long the SDK would by itself
_ASKED: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "What is in the box?"}]}
_RETRIES = 1  # of two, which are the default: the second only doubles the time

_BOTH = "\n  anthropic: {{dialect: anthropic, path: /anthropic, regions: [{region}]}}"


def waits(lab: Lab, pace: Pace) -> list[Row]:
    """Seconds until the exception, by SDK and by what the region asks for: no more than directly, and half a second."""
    rows = []
    with lab.region() as region:
        beside = _BOTH.format(region=at("here", region.port))
        with Sidecar(lab.folder(), at("here", region.port), service=beside) as sidecar, ThreadPoolExecutor() as pool:
            for seconds in (2, 4, 3600) if pace.quick else (30, 90, 3600):
                region.be("429", retry_after=seconds)
                direct, through = f"http://127.0.0.1:{region.port}", f"http://127.0.0.1:{sidecar.port}"
                found = {
                    "openai": (
                        pool.submit(_seconds, _openai, f"{direct}/v1"),
                        pool.submit(_seconds, _openai, f"{through}/openai/v1"),
                    ),
                    "anthropic": (
                        None if seconds > _HOPELESS else pool.submit(_seconds, _anthropic, direct),
                        pool.submit(_seconds, _anthropic, f"{through}/anthropic"),
                    ),
                }
                for name, (without, within) in found.items():
                    least = 0.0 if without is None else without.result()
                    taken = within.result()
                    what = f"{name}: seconds until the 429 is raised, Retry-After {seconds}"
                    beside = "for hours" if without is None else f"{least:.2f}"
                    rows.append(
                        Row("sdk-waits", what, f"{taken:.2f}", beside, bar="<= directly + 0.5 s",
                            reached=taken <= least + _SLACK)
                    )  # fmt: skip
    return rows


def _seconds(ask: Callable[[str], None], base: str) -> float:
    began = time.monotonic()
    ask(base)
    return time.monotonic() - began


def _openai(base: str) -> None:
    with openai.OpenAI(base_url=base, api_key="sk-bench", max_retries=_RETRIES) as client:
        try:
            client.chat.completions.create(**_ASKED)
        except openai.RateLimitError:
            return
    raise RuntimeError("the region was to throttle")


def _anthropic(base: str) -> None:
    with anthropic.Anthropic(base_url=base, api_key="sk-bench", max_retries=_RETRIES) as client:
        try:
            client.messages.create(max_tokens=64, **_ASKED)
        except anthropic.RateLimitError:
            return
    raise RuntimeError("the region was to throttle")
