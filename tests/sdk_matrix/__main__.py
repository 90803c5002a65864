"""
Ask by every client, and write ``docs/clients.md``.

The rule: a client runs in a process and an environment of its own (``.venv-sdks``), against a sidecar in this one.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

from sidecar.core.model import Record
from sidecar.core.rules import Listen, Region, Rules, Service
from sidecar.demo.provider import DemoProvider
from sidecar.dialects import DIALECTS
from sidecar.lifecycle import Sidecar
from sidecar.settings.builtin import ROUTES
from tests.sdk_matrix import clients
from tests.sdk_matrix.clients import CLIENTS, Client
from tests.sdk_matrix.page import PAGE, Seen, page, row

_PYTHON = Path(__file__).parents[2] / ".venv-sdks" / "bin" / "python"
_VERSION = "import sys; from importlib.metadata import version; print(version(sys.argv[1]))"
_LONGEST = 120.0


async def _run(*arguments: str) -> tuple[int, str]:
    """A Python program in the clients' environment: its exit code, and the last line that it said."""
    plain = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    process = await asyncio.create_subprocess_exec(
        str(_PYTHON), *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=plain
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(), _LONGEST)
    except TimeoutError:
        process.kill()
        return 1, "took too long"
    lines = said.decode(errors="replace").strip().splitlines() or [""]
    return process.returncode or 0, lines[-1]


def _told(record: Record) -> str:
    outcome = record.outcome.value.replace("hit_memory", "hit")
    return f"{outcome} ({record.reason})" if record.reason else outcome


async def _look(client: Client, url: str, provider: DemoProvider, records: list[Record]) -> Seen:
    _, version = await _run("-c", _VERSION, client.package)
    seen = Seen(version)
    records.clear()
    provider.seen.clear()
    for more in ((), ("0",), ("0",)):
        code, line = await _run(clients.__file__, client.package, url, *more)
        if code:
            return replace(seen, fault=line.replace("|", "/")[:100])
    asked = json.loads(provider.seen[0].body)
    first, *rest = map(_told, records)
    return replace(seen, temperature=str(asked.get("temperature", "none")), first=first, at_zero=", ".join(rest))


async def main() -> int:
    """Exit code 1 where a client doesn't work."""
    provider = DemoProvider()
    region = Region("demo", f"http://127.0.0.1:{await provider.start()}")
    own = {name: replace(dialect, own_hosts=("127.0.0.1",)) for name, dialect in DIALECTS.items()}
    services = tuple(Service(name, own[name], (region,), path=f"/{name}") for name in ("openai", "anthropic"))
    rules = Rules(services, ROUTES, listen=Listen(port=0), health=Listen(port=0), admin=Listen(port=0))
    sidecar = Sidecar(rules, environ={}, write=lambda _: None)
    records: list[Record] = []
    sidecar.proxy._record = sidecar.proxy._boarding._record = records.append
    await sidecar.start()
    rows, faults = [], 0
    try:
        for client in CLIENTS:
            seen = await _look(client, f"http://127.0.0.1:{sidecar.port}", provider, records)
            faults += bool(seen.fault)
            rows.append(row(client, seen))
            print(rows[-1])
    finally:
        await sidecar.stop()
        await provider.stop()
    PAGE.write_text(page(rows))
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
