"""The command line: what each command prints, and its exit code."""

from __future__ import annotations

import io
import subprocess
import sys
from types import SimpleNamespace

import pytest

from sidecar import __version__
from sidecar.cli import main

GOOD = """\
version: 1
services:
  mine: {dialect: openai, regions: [{name: eu, url: "https://eu.example"}]}
routes:
  - {name: mine, match: {service: mine}}
"""

BAD = """\
version: 1
listen: {port: nowhere}
routes:
  - {name: a, cache: {modus: always}}
"""

REQUEST = """\
POST /openai/v1/chat/completions HTTP/1.1
Host: 127.0.0.1:7400
Authorization: Bearer sk-secret

{"model": "gpt-4o", "temperature": 0, "messages": []}
"""


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    """No variable of the surroundings counts."""
    monkeypatch.setattr("sidecar.cli.os.environ", {})


@pytest.fixture
def write(tmp_path):
    """Writes a file; its path."""

    def write(name, text):
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


def test_version_of_the_real_command():
    """``python -m sidecar version`` is the program, all of it."""
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "version"], capture_output=True, text=True, timeout=15, check=False
    )

    assert (0, f"sidecar {__version__}\n", "") == (done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param([], id="no-command"),
        pytest.param(["walk"], id="unknown-command"),
        pytest.param(["check"], id="no-file"),
        pytest.param(["run", "--port", "many"], id="no-number"),
        pytest.param(["run", "--on-bad-config", "panic"], id="unknown-choice"),
    ],
)
def test_wrong_usage(arguments, capsys):
    """Exit code 2, and how it is used."""
    with pytest.raises(SystemExit) as left:
        main(arguments)

    assert 2 == left.value.code
    assert capsys.readouterr().err.startswith("usage: sidecar")


def test_check_good(write, capsys):
    """One line that says so."""
    path = write("c.yaml", GOOD)
    code = main(["check", path])

    assert 0 == code
    assert (f"{path}: good; 4 services, 7 routes.\n", "") == tuple(capsys.readouterr())


def test_check_bad(write, capsys):
    """Exit code 2, and every problem in a line of its own, also those that ``run`` tolerates."""
    path = write("c.yaml", BAD)
    code = main(["check", path])
    out, err = capsys.readouterr()

    assert 2 == code
    assert "" == out
    assert [f"{path}:2: listen.port: ", f"{path}:4: routes[0].cache.modus: "] == [
        line[: line.index(": ", len(path) + 4) + 2] for line in err.splitlines()
    ]


def test_check_nothing_there(tmp_path, capsys):
    """A file that isn't there is a problem like any other."""
    code = main(["check", str(tmp_path / "none.yaml")])

    assert 2 == code
    assert "cannot be read: No such file or directory" in capsys.readouterr().err


def test_explain(write, capsys):
    """The report on a request's file, under a configuration."""
    code = main(["explain", "--config", write("c.yaml", GOOD), write("ask.http", REQUEST)])
    out, err = capsys.readouterr()

    assert (0, "") == (code, err)
    assert "decision:    look-up\n" in out
    assert "sk-secret" not in out


def test_explain_standard_input(write, capsys, monkeypatch):
    """``-`` reads the request from standard input."""
    monkeypatch.setattr("sidecar.cli.sys.stdin", SimpleNamespace(buffer=io.BytesIO(REQUEST.encode())))
    code = main(["explain", "--config", write("c.yaml", GOOD), "-"])

    assert 0 == code
    assert "decision:    look-up\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("request_file", "stream", "expected"),
    [
        pytest.param("none.http", "err", "No such file or directory", id="no-file"),
        pytest.param("prose.http", "out", "not an HTTP request", id="no-request"),
    ],
)
def test_explain_unreadable(request_file, stream, expected, write, tmp_path, capsys):
    """Exit code 2, and what is wrong with the request's file."""
    write("prose.http", "What is in the box?\n")
    code = main(["explain", "--config", write("c.yaml", GOOD), str(tmp_path / request_file)])

    assert 2 == code
    assert expected in getattr(capsys.readouterr(), stream)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param([], {"port": None, "demo": False, "passthrough_on_bad_config": False}, id="nothing"),
        pytest.param(
            ["--port", "7500", "--demo", "--on-bad-config", "passthrough"],
            {"port": 7500, "demo": True, "passthrough_on_bad_config": True},
            id="everything",
        ),
    ],
)
def test_run_hands_on_its_options(options, expected, monkeypatch):
    """What ``run`` is told arrives; what it then does is told in test_running."""
    told = {}
    monkeypatch.setattr("sidecar.running.run", lambda config, **more: told.update(config=config, **more) or 7)
    code = main(["run", "--config", "here", *options])

    assert 7 == code
    assert {"config": "here"} | expected == told


@pytest.mark.parametrize(
    ("error", "expected"), [(KeyboardInterrupt, 130), (BrokenPipeError, 1)], ids=["interrupt", "closed-pipe"]
)
def test_left_early(error, expected, monkeypatch):
    """Ctrl-C and a reader that went away end a command without a traceback."""

    def leave(*_, **__):
        raise error

    redirected = []
    monkeypatch.setattr("sidecar.running.run", leave)
    monkeypatch.setattr("sidecar.cli.os.dup2", lambda *descriptors: redirected.append(descriptors))

    assert expected == main(["run"])
    assert (error is BrokenPipeError) is bool(redirected)
