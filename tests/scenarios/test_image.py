"""
The image, as a kubelet runs it: a numeric user, a root that nobody can write, a volume at ``/tmp`` and one for state.

The rule: ``TESTED_IMAGE`` names an image that has been built from the ``Dockerfile``, and buildah and runc run it.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.scenarios.answers import completion, said, whole
from tests.scenarios.conftest import CHAT
from tests.scenarios.open_streams import TEXT, Streaming, opened
from tests.scenarios.processes import Process, launch

ROOT = Path(__file__).parents[2]
IMAGE = os.environ.get("TESTED_IMAGE", "")
MOST_BYTES = 120_000_000

Run = Callable[..., Awaitable[Process]]

built = pytest.mark.skipif(
    not (IMAGE and shutil.which("buildah") and shutil.which("runc")),
    reason="TESTED_IMAGE names no image, or buildah or runc is missing",
)


def told(*command: str) -> str:
    """The standard output of *command*."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def image() -> Iterator[tuple[Path, dict[str, Any]]]:
    """The files of the image, and how it is to be run."""
    container = told("buildah", "from", "--pull-never", IMAGE)
    config = json.loads(told("buildah", "inspect", "--type", "image", IMAGE))["OCIv1"]["config"]
    yield Path(told("buildah", "mount", container)), config
    told("buildah", "rm", container)


@pytest.fixture
async def run(image, tmp_path) -> AsyncIterator[Run]:
    """Runs the image with a configuration of *members*, on the network of this machine or, *alone*, on none."""
    running: list[Process] = []
    root, config = image

    async def start(*, user: str = "", alone: bool = False, **members: object) -> Process:
        (tmp_path / "etc").mkdir()
        (tmp_path / "etc" / "sidecar.yaml").write_text(json.dumps(members))
        for volume in ("tmp", "state"):
            (tmp_path / volume).mkdir()
            (tmp_path / volume).chmod(0o777)
        tmp_path.chmod(0o755)
        container = bundle(root, {**config, "User": user or config["User"]}, tmp_path)
        container["linux"]["namespaces"] += [{"type": "network"}] * alone
        (tmp_path / "config.json").write_text(json.dumps(container))
        runc = ("runc", "--root", str(tmp_path / "runc"))
        process = launch(tmp_path, *runc, "run", "--bundle", str(tmp_path), tmp_path.name)
        running.append(process)
        await process.started()
        return process

    yield start
    for process in running:
        process.terminate()
        process.child.wait(60)


def bundle(root: Path, config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The OCI runtime's configuration of a container under the restricted profile of Pod Security Standards."""
    user, group = map(int, config["User"].split(":"))
    mounts = [
        {"destination": place, "type": "bind", "source": str(folder / name), "options": ["bind", access]}
        for place, name, access in (
            ("/etc/sidecar", "etc", "ro"),
            ("/tmp", "tmp", "rw"),
            ("/var/lib/sidecar", "state", "rw"),
        )
    ]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": user, "gid": group},
            "args": [*config["Entrypoint"], *config["Cmd"]],
            "env": config["Env"],
            "cwd": config["WorkingDir"],
            "capabilities": {},
            "noNewPrivileges": True,
        },
        "root": {"path": str(root), "readonly": True},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            *mounts,
        ],
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")]},
    }


ASK = """
import json, sys, urllib.error, urllib.request
request = urllib.request.Request(sys.argv[1], headers={"content-type": "application/json", "authorization": "Bearer k"})
if "7400" in sys.argv[1]:
    message = {"role": "user", "content": "Hi"}
    request.data = json.dumps({"model": "m", "max_tokens": 9, "temperature": 0, "messages": [message]}).encode()
try:
    answer = urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60)
except urllib.error.HTTPError as error:
    answer = error
print(json.dumps([answer.status, answer.read().decode()]))
"""
"""Prints the status and the body that a URL answers with."""


async def answer(writer: asyncio.StreamWriter) -> None:
    """What the service says to every call."""
    writer.write(whole(completion("Yes.")))


def configured(url: str) -> dict[str, Any]:
    """One region at *url*, and ports that nobody else has."""
    region = {"name": "here", "url": url}
    return {
        "version": 1,
        "listen": {"port": 0},
        "health": {"port": 0},
        "admin": {"port": 0},
        "limits": {"drain": "30s"},
        "upstream": {"proxy": "none"},
        "services": {"openai": {"dialect": "openai", "path": "/openai", "regions": [region]}},
    }


@built
async def test_drains_with_streams_open(run, script, dial):
    """Twenty streams get their rest after SIGTERM, and the container ends with 0."""
    service = Streaming()
    upstream = await script(service)
    process = await run(**configured(upstream.url))
    callers = await opened(process, dial)
    process.terminate()
    await process.refuses()
    service.go.set()
    replies = await asyncio.gather(*(caller.reply() for caller in callers))

    assert 0 == await process.ended()
    assert [(200, False, TEXT)] * 20 == [(reply.status, reply.broken, said(reply.body)) for reply in replies]
    assert ["started", "draining", "stopped"] == [line["event"] for line in process.events]


@built
async def test_a_broken_configuration_forwards(run):
    """The image starts in passthrough, so that no pod waits for us."""
    process = await run(alone=True, version=1, routes="none")  # on no network, for its ports are those of others here

    assert "config-problem" in [line["event"] for line in process.events]


@built
async def test_any_user(run, script, dial):
    """OpenShift gives each namespace a user of its own, in group 0: no name, no home, and yet nothing is missing."""
    upstream = await script(lambda _head, _body, writer: answer(writer))
    process = await run(user="1000660000:0", **configured(upstream.url))
    reply = await (await dial(process.port, CHAT)).reply()
    process.terminate()

    assert 0 == await process.ended()
    assert (200, "Yes.") == (reply.status, said(reply.body))
    assert ["started", "draining", "stopped"] == [line["event"] for line in process.events]


@built
@pytest.mark.skipif(not shutil.which("nsenter"), reason="nsenter is missing")
async def test_no_network(run, tmp_path):
    """It starts, is ready, and says of a call why it can't be made; nothing waits for a name that nobody knows."""
    await run(alone=True, version=1)
    state = json.loads(told("runc", "--root", str(tmp_path / "runc"), "state", tmp_path.name))
    inside = ("nsenter", f"--net=/proc/{state['pid']}/ns/net", sys.executable, "-c", ASK)
    answers = [
        json.loads(await asyncio.to_thread(told, *inside, url))
        for url in (
            "http://127.0.0.1:7491/readyz",
            "http://127.0.0.1:7400/openai/v1/chat/completions",
            "http://127.0.0.1:7400/anthropic/v1/messages",
        )
    ]

    assert [200, 502, 502] == [status for status, _ in answers]
    assert {"openai": True, "anthropic": True} == {
        name: f"api.{name}.com" in body for name, (_, body) in zip(("openai", "anthropic"), answers[1:], strict=True)
    }


@built
def test_what_is_in_it(image):
    """No shell, no package index, no compiler; it is small, and every module is compiled."""
    root, _ = image
    files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    modules = [path for path in files if path.suffix == ".py" and "site-packages" in path.parts]

    assert sum(path.stat().st_size for path in files) <= MOST_BYTES
    assert not {"sh", "bash", "dash", "apt-get", "pip", "pip3", "gcc", "ld"} & {path.name for path in files}
    assert modules
    assert [] == [path for path in modules if not list(path.parent.glob(f"__pycache__/{path.stem}.cpython-*.pyc"))]


def test_the_context_holds_what_the_dockerfile_copies():
    """``.dockerignore`` lets in nothing else, so no secret of a checkout comes into an image."""
    recipe = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    allowed = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(encoding="utf-8"), re.MULTILINE)
    copied = [word for line in re.findall(r"^COPY (?!--from)(.+) \S+$", recipe, re.MULTILINE) for word in line.split()]

    assert sorted(allowed) == sorted(copied)


def test_nothing_of_one_machine():
    """No architecture is named, and the user is a number, which ``runAsNonRoot`` needs."""
    recipe = (ROOT / "Dockerfile").read_text(encoding="utf-8")

    steps = re.sub(r"^#.*$", "", recipe, flags=re.MULTILINE)

    assert not re.search(r"x86_64|amd64|aarch64|arm64|--platform", steps)
    assert re.search(r"^USER \d+:\d+$", recipe, re.MULTILINE)
