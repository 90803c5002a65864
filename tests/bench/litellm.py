"""
The row against LiteLLM's proxy: the same hits, the same core. It needs LiteLLM in an environment of its own.

The rule: LiteLLM runs as its documentation says for speed: one worker, in-memory cache, no database, warnings only; and
both are asked for what both keep, which is proven round by round.
"""

from __future__ import annotations

import os
import subprocess
from functools import partial
from pathlib import Path
from statistics import median

from tests.bench import bodies
from tests.bench.lab import Lab, Missing, Pace, Row, Side, alternate, spread
from tests.bench.load import Caller, marked
from tests.bench.machine import SERVER_CORE, Process, free_port

_CONFIG = """\
model_list:
  - model_name: gpt-4o-mini
    litellm_params: {{model: openai/gpt-4o-mini, api_base: "http://127.0.0.1:{upstream}/v1", api_key: bench}}
litellm_settings: {{cache: true, cache_params: {{type: local}}, set_verbose: false, drop_params: true}}
"""

_OPEN = "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY"
"""Without it the proxy refuses to start where callers need no key, as here."""


def hits_litellm(lab: Lab, pace: Pace) -> list[Row]:
    """Hits of one body over 16 connections, and the memory that stands behind them."""
    process, port = _start(lab)
    ours, theirs = bodies.short_chat(), bodies.short_chat("/v1/chat/completions")
    with process, lab.sidecar() as sidecar:
        sides = [
            Side(partial(lab.hits, to, [request], connections=16), of)
            for to, request, of in ((sidecar.port, ours, sidecar.process), (port, theirs, process))
        ]
        for to, request in ((sidecar.port, ours), (port, theirs)):
            with Caller(to) as caller:
                caller.call(marked(request))
        alternate(pace, *sides)
        held, held_by_them = (side.process.memory()["rss"] for side in sides)
    rates = [side.core_rates for side in sides]
    ratio = median(a / b for a, b in zip(*rates, strict=True))
    return [
        Row("litellm", "hits/s of a core: one body, 16 conn.", spread(rates[0]), f"LiteLLM {spread(rates[1])}",
            round(ratio), ">= 100 x", ratio >= 100, {"sidecar": sides[0].told(), "litellm": sides[1].told()}),
        Row("litellm", "resident after that, MiB", f"{held:.0f}", f"LiteLLM {held_by_them:.0f}",
            round(held / held_by_them, 2), "<= 1/4", held <= held_by_them / 4),
    ]  # fmt: skip


def _start(lab: Lab) -> tuple[Process, int]:
    venv = os.environ.get("LITELLM_VENV", "")
    if not venv:
        raise Missing("LITELLM_VENV names no environment with litellm[proxy] in it")
    python = str(Path(venv) / "bin/python")
    if subprocess.run([python, "-c", "import litellm"], capture_output=True, check=False).returncode:
        raise Missing(f"litellm cannot be imported in {venv}")
    home, port = lab.folder(), free_port()
    home.mkdir()
    config = home / "litellm.yaml"
    config.write_text(_CONFIG.format(upstream=lab.upstream_port))
    argv = [str(Path(venv) / "bin/litellm"), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    environ = {**os.environ, "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True", _OPEN: "true"}
    process = Process("litellm", argv, core=SERVER_CORE, log=home / "output.log", environ=environ)
    process.await_port(port, seconds=90)
    return process, port
