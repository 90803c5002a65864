"""
A sidecar whose rules stand in a folder, as in a pod, and are changed there while it runs.

The rule: a story writes files as the world does (kubelet, an editor, a script), and looks at what callers see.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sidecar.admin.actions import ReloadResult
from sidecar.app.reload import Source
from sidecar.settings import load
from sidecar.settings.watch import FileWatch
from tests.mounted import FILE, mount
from tests.scenarios.lab import CHAT, CHAT_PATH, KEY, Lab
from tests.scenarios.regions import Region

OPEN = {"listen.port": 0, "health.port": 0, "admin.port": 0}
"""Any free ports; a story finds those that were chosen."""


@dataclass
class RulesOnDisk:
    """The folder of a configuration."""

    folder: Path

    @property
    def file(self) -> Path:
        return self.folder / FILE

    def write(self, text: str) -> None:
        """As a script does: in place."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.file.write_text(text)

    def rename(self, text: str) -> None:
        """As an editor does: another file, renamed."""
        other = self.folder / ".sidecar.yaml.swp"
        other.write_text(text)
        other.replace(self.file)

    def mount(self, text: str) -> None:
        """As kubelet does."""
        mount(self.folder, text)

    def remove(self) -> None:
        """The whole folder goes."""
        shutil.rmtree(self.folder)

    def source(self) -> Source:
        """Where a sidecar reads it."""
        watch = FileWatch(str(self.folder))
        read = partial(load, str(self.folder), environ={}, overrides=OPEN, strict=False, here=True, running=True)
        return Source(read, watch)


async def reload(lab: Lab) -> ReloadResult:
    """Read the rules of *lab* now. Raises ``Refused``."""
    return await lab.sidecar.reloads.reload("story")


def events(lab: Lab, name: str) -> list[dict[str, Any]]:
    """The log's lines of an event."""
    return [line for line in map(json.loads, lab.logs) if line["event"] == name]


async def live(lab: Lab, holds: Callable[[], bool]) -> None:
    """Wait until the sidecar itself has noticed."""
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110  what is looked at has no events for tests
            await asyncio.sleep(0.01)


def rules(*regions: Region | str, service: str = "", route: str = "", more: str = "") -> str:
    """
    A configuration in YAML: service ``openai`` with *regions* (a URL, or a region as ``regions.Region``), and a route
    ``team`` for its chats. *service*, *route* and *more* are further members of these and of the whole, in flow style.
    """
    named = [("here", each) if isinstance(each, str) else (each.name, each.url) for each in regions]
    places = ", ".join(f"{{name: {name}, url: '{url}'}}" for name, url in named)
    return (
        f"services: {{openai: {{regions: [{places}]{', ' * bool(service)}{service}}}}}\n"
        f"routes: [{{name: team, match: {{path: '*/chat/completions'}}{', ' * bool(route)}{route}}}]\n{more}"
    )


class WarmCaller:
    """One connection that is kept: its heads become known, so that repeats take the shortest way."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._rest = b""

    async def begin(self, team: str | None, body: Any = CHAT, *, whole: bool = False) -> None:
        """Send the head of a call, and all but the end of its body, or all of it."""
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._lab.sidecar.port)
        data = json.dumps(body).encode()
        given = {"Host": "localhost", "Authorization": KEY, "Content-Type": "application/json"}
        given |= {} if team is None else {"X-Team": team}
        lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
        head = f"POST {CHAT_PATH} HTTP/1.1\r\n{lines}Content-Length: {len(data)}\r\n\r\n".encode()
        cut = len(data) if whole else len(data) - 5
        self._rest = data[cut:]
        self._writer.write(head + data[:cut])

    async def finish(self) -> str:
        """Send the rest; how the call was answered."""
        assert self._reader is not None
        assert self._writer is not None
        self._writer.write(self._rest)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        assert head.startswith(b"http/1.1 200"), head
        await self._reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
        await self._lab.settle()
        return self._lab.records[-1].outcome.value

    async def ask(self, team: str | None, body: Any = CHAT) -> str:
        """Make one call in one piece; how it was answered."""
        await self.begin(team, body, whole=True)
        return await self.finish()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


@pytest.fixture
def disk(tmp_path: Path) -> RulesOnDisk:
    """The folder of a configuration, mounted as kubelet does it."""
    return RulesOnDisk(tmp_path / "etc")
