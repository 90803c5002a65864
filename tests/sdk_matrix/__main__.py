"""
Ask by every client, and write ``docs/clients.md``.

The rule: a client runs in a process and an environment of its own (``.venv-sdks``, ``.node-sdks``). If it is told its
base URL, the sidecar is in this process; if injection tells it, in one of its own. Where Node or its packages are
missing, the rows of its clients stay as they are.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from sidecar.app.sidecar import Sidecar
from sidecar.core.model import Record
from sidecar.core.rules import Listen, Region, Rules, Service
from sidecar.demo.provider import DemoProvider
from sidecar.dialects import DIALECTS
from sidecar.settings.builtin import ROUTES
from tests.sdk_matrix import clients
from tests.sdk_matrix.applications import APPLICATIONS
from tests.sdk_matrix.clients import CLIENTS, Client
from tests.sdk_matrix.injected import NODE, NODE_PACKAGES, ROOT, USUAL_PORT, Stage
from tests.sdk_matrix.page import HEADING, INJECTED, PAGE, Seen, injected_row, page, row, standing

_PYTHON = ROOT / ".venv-sdks" / "bin" / "python"
_NODE_CLIENTS = Path(__file__).with_name("clients.mjs")
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
        cwd=NODE_PACKAGES if command[0] == NODE else ROOT,
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


async def _version(packages: tuple[str, ...], *, node: bool) -> str:
    """The version of a client's own package, the first; those of others with their names."""
    versions = []
    for package in packages:
        if node:
            version = json.loads((NODE_PACKAGES / "node_modules" / package / "package.json").read_text())["version"]
        else:
            _, version = await _run(str(_PYTHON), "-c", _VERSION, package)
        versions.append(f"{package} {version}" if versions else version)
    return ", ".join(versions)


async def _ask(client: Client, url: str, *more: str) -> tuple[int, str]:
    """One call, with a key of the client's own: none is answered with what another has asked."""
    arguments = (client.name, url, "sk-" + re.sub(r"\W+", "-", client.name), *more)
    if client.ask:
        return await _run(str(_PYTHON), clients.__file__, *arguments)
    assert NODE
    return await _run(NODE, "--input-type=module", "--eval", _NODE_CLIENTS.read_text(), "--", *arguments)


async def _look(client: Client, url: str, provider: DemoProvider, records: list[Record]) -> Seen:
    seen = Seen(await _version(client.installs, node=not client.ask))
    records.clear()
    provider.seen.clear()
    for more in ((), ("0",), ("0",)):
        code, line = await _ask(client, url, *more)
        if code:
            return replace(seen, fault=line.replace("|", "/")[:100])
    asked = json.loads(provider.seen[0].body)
    first, *rest = map(_told, records)
    return replace(seen, temperature=str(asked.get("temperature", "none")), first=first, at_zero=", ".join(rest))


async def _told_a_base_url() -> tuple[list[str], int]:
    """The rows of the clients that are told their base URL, and how many of them don't work."""
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
    rows, faults, stand = [], 0, standing(HEADING)
    try:
        for client in CLIENTS:
            if not (client.ask or NODE):
                rows += [stand[client.name]] if client.name in stand else []
                continue
            seen = await _look(client, f"http://127.0.0.1:{sidecar.port}", provider, records)
            faults += bool(seen.fault)
            rows.append(row(client, seen))
            print(rows[-1])
    finally:
        await sidecar.stop()
        await provider.stop()
    return rows, faults


async def _injected() -> tuple[list[str], int]:
    """The rows of the applications that injection tells where to call, and how many of them aren't as expected."""
    rows, faults, stand = [], 0, standing(INJECTED)
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(Path(folder))
        await stage.start(USUAL_PORT)
        try:
            for application in APPLICATIONS:
                if application.node and not NODE:
                    rows += [stand[application.client]] if application.client in stand else []
                    continue
                fault = await stage.look(application, str(_PYTHON))
                faults += bool(fault) == bool(application.by)
                version = await _version(application.packages, node=application.node)
                rows.append(injected_row(application, version, fault.replace("|", "/")[:100]))
                print(rows[-1])
        finally:
            await stage.stop()
    return rows, faults


async def main() -> int:
    """Exit code 1 where a client doesn't work."""
    if not NODE:
        print("Node or its packages are missing: the rows of its clients stay as they are.", file=sys.stderr)
    told, faults = await _told_a_base_url()
    injected, more = await _injected()
    PAGE.write_text(page(told, injected))
    return int(faults + more > 0)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
