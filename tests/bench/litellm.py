"""
The row against LiteLLM's proxy: the same hits, the same core. It needs LiteLLM in an environment of its own.

The rule: LiteLLM runs as its documentation says for speed: one worker, in-memory cache, no database, warnings only.
"""

from __future__ import annotations

import os
import subprocess
from functools import partial
from pathlib import Path
from statistics import median

from tests.bench import bodies
from tests.bench.lab import Lab, Missing, Pace, Row, Side, alternate, spread
from tests.bench.load import Caller, Measured, marked
from tests.bench.machine import SERVER_CORE, Process, free_port

_CONFIG = """\
model_list:
  - model_name: gpt-4o-mini
    litellm_params: {{model: openai/gpt-4o-mini, api_base: "http://127.0.0.1:{upstream}/v1", api_key: bench}}
litellm_settings: {{cache: true, cache_params: {{type: local}}, set_verbose: false, drop_params: true}}
"""


def hits_litellm(lab: Lab, pace: Pace) -> list[Row]:
    """Hits of one body over 16 connections, and the memory that stands behind them."""
    process, port = _start(lab)
    request = bodies.variants(1)[0]
    with process, lab.sidecar() as sidecar:
        sides = [
            Side(partial(_round, lab, to, request), of) for to, of in ((sidecar.port, sidecar.process), (port, process))
        ]
        for to in (sidecar.port, port):
            with Caller(to) as caller:
                caller.call(marked(request))
        alternate(pace, *sides)
        ours, theirs = (side.process.memory()["rss"] for side in sides)
    rates = [side.core_rates for side in sides]
    ratio = median(a / b for a, b in zip(*rates, strict=True))
    return [
        Row("litellm", "hits/s of a core: one body, 16 conn.", spread(rates[0]), f"LiteLLM {spread(rates[1])}",
            round(ratio), ">= 100 x", ratio >= 100, {"sidecar": sides[0].told(), "litellm": sides[1].told()}),
        Row("litellm", "resident after that, MiB", f"{ours:.0f}", f"LiteLLM {theirs:.0f}", round(ours / theirs, 2),
            "<= 1/4", ours <= theirs / 4),
    ]  # fmt: skip


def _round(lab: Lab, port: int, request: bytes, seconds: int) -> Measured:
    return lab.load(port, [request], connections=16, seconds=seconds)


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
    environ = {**os.environ, "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    process = Process("litellm", argv, core=SERVER_CORE, log=home / "output.log", environ=environ)
    process.await_port(port, seconds=90)
    return process, port
