"""``sidecar wait``: until the sidecar is ready; the command runs in any case."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from sidecar.core.pods.container import HOLD
from tests.redis_servers import free_port


@pytest.fixture
def health() -> Iterator[HTTPServer]:
    """A health port whose answers are set by a story: the statuses, one after another; the last one stays."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            statuses = self.server.statuses
            self.send_response(statuses.pop(0) if len(statuses) > 1 else statuses[0])
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.statuses = [200]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def run(port: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "SIDECAR_HEALTH_PORT": str(port)}
    return subprocess.run(
        [sys.executable, "-m", "sidecar", "wait", *arguments], env=environ, capture_output=True, text=True, check=False
    )


def test_ready(health):
    """At once, or when it has become so."""
    for statuses in ([200], [503, 503, 200]):
        health.statuses = list(statuses)
        done = run(health.server_port, "--for", "20s")

        assert (0, "", "") == (done.returncode, done.stdout, done.stderr)


def test_a_command(health):
    """It runs instead, with its arguments and its exit code."""
    done = run(
        health.server_port, "--", sys.executable, "-c", "import sys; print(sys.argv[1:]); sys.exit(7)", "--for", "x"
    )

    assert (7, "['--for', 'x']\n") == (done.returncode, done.stdout)


def test_nobody_there():
    """It says so; a command runs all the same."""
    port = free_port()
    alone = run(port, "--for", "200ms")
    command = run(port, "--for", "200ms", "--", "true")

    assert (1, 0) == (alone.returncode, command.returncode)
    assert f"no sidecar is ready at 127.0.0.1:{port}" in alone.stderr
    assert alone.stderr == command.stderr


def test_a_broken_configuration(health, tmp_path):
    """A sidecar that forwards because of it is waited for, and a command runs all the same."""
    (tmp_path / "sidecar.yaml").write_text("version: 1\nroutes: none\n")
    alone = run(health.server_port, "--config", str(tmp_path), "--for", "20s")
    command = run(health.server_port, "--config", str(tmp_path), "--for", "20s", "--", "true")

    assert (0, 0) == (alone.returncode, command.returncode)


@pytest.mark.parametrize("text", ["version: 1", "routes: none"])
def test_what_holds_an_application(tmp_path, text):
    """The hook of a classic sidecar ends well, also where its sidecar is not ready in time, by any configuration."""
    (tmp_path / "sidecar.yaml").write_text(text)
    others = {"30s": "100ms", "/etc/sidecar": str(tmp_path)}
    command, *arguments = HOLD
    words = [others.get(word, word) for word in arguments]
    front = [sys.executable, "-m", command]
    words[words.index("--") + 1 :] = [*front, *words[words.index("--") + 2 :]]
    environ = {**os.environ, "SIDECAR_HEALTH_PORT": str(free_port())}
    done = subprocess.run([*front, *words], env=environ, capture_output=True, text=True, check=False)

    assert (0, "no sidecar is ready" in done.stderr) == (done.returncode, True)


def test_never_ready(health):
    """Its answer is told."""
    health.statuses = [503]

    assert "it answers 503" in run(health.server_port, "--for", "200ms").stderr


@pytest.mark.parametrize(
    ("arguments", "code"), [(["--for", "soon"], 2), (["--for", "1ms", "--", "/nowhere/at-all"], 127)]
)
def test_wrong_usage(arguments, code):
    """It is said, with the usual codes."""
    done = run(free_port(), *arguments)

    assert (code, True) == (done.returncode, bool(done.stderr))
