"""
Ask by every client, and write ``docs/clients.md``.

The rule: a client runs in a process and an environment of its own (``.venv-sdks``, ``.node-sdks``), against a sidecar
in this one. Where Node or its packages are missing, the rows of its clients stay as they are.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from sidecar.app.sidecar import Sidecar
from sidecar.core.model import Record
from sidecar.core.rules import Listen, Region, Rules, Service
from sidecar.demo.provider import DemoProvider
from sidecar.dialects import DIALECTS
from sidecar.settings.builtin import ROUTES
from tests.sdk_matrix import clients
from tests.sdk_matrix.clients import CLIENTS, Client
from tests.sdk_matrix.page import PAGE, Seen, page, row, standing

_ROOT = Path(__file__).parents[2]
_PYTHON = _ROOT / ".venv-sdks" / "bin" / "python"
_NODE_SDKS = _ROOT / ".node-sdks"
_NODE_CLIENTS = Path(__file__).with_name("clients.mjs")
_NODE = shutil.which("node") if (_NODE_SDKS / "node_modules").is_dir() else None
_VERSION = "import sys; from importlib.metadata import version; print(version(sys.argv[1]))"
_LONGEST = 120.0


async def _run(*command: str) -> tuple[int, str]:
    """A program: its exit code, and the last line that it said. Node finds its packages from its folder."""
    plain = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=plain,
        cwd=_NODE_SDKS if command[0] == _NODE else _ROOT,
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


async def _version(client: Client) -> str:
    """The version of the client's own package; those of others with their names."""
    versions = []
    for package in client.installs:
        if client.ask:
            _, version = await _run(str(_PYTHON), "-c", _VERSION, package)
        else:
            version = json.loads((_NODE_SDKS / "node_modules" / package / "package.json").read_text())["version"]
        versions.append(f"{package} {version}" if versions else version)
    return ", ".join(versions)


async def _ask(client: Client, url: str, *more: str) -> tuple[int, str]:
    """One call, with a key of the client's own: none is answered with what another has asked."""
    arguments = (client.name, url, "sk-" + re.sub(r"\W+", "-", client.name), *more)
    if client.ask:
        return await _run(str(_PYTHON), clients.__file__, *arguments)
    assert _NODE
    return await _run(_NODE, "--input-type=module", "--eval", _NODE_CLIENTS.read_text(), "--", *arguments)


async def _look(client: Client, url: str, provider: DemoProvider, records: list[Record]) -> Seen:
    seen = Seen(await _version(client))
    records.clear()
    provider.seen.clear()
    for more in ((), ("0",), ("0",)):
        code, line = await _ask(client, url, *more)
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
    services = (
        *(Service(name, own[name], (region,), path=f"/{name}") for name in ("openai", "anthropic")),
        Service("azure-openai", own["azure-openai"], (region,), path="/azure", resource=True),
    )
    rules = Rules(services, ROUTES, listen=Listen(port=0), health=Listen(port=0), admin=Listen(port=0))
    records: list[Record] = []
    sidecar = Sidecar(rules, environ={}, write=lambda _: None, sinks=(records.append,))
    await sidecar.start()
    rows, faults, stand = [], 0, standing()
    if not _NODE:
        print("Node or its packages are missing: the rows of its clients stay as they are.", file=sys.stderr)
    try:
        for client in CLIENTS:
            if not (client.ask or _NODE):
                rows += [stand[client.name]] if client.name in stand else []
                continue
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
