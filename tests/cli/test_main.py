"""The command line: what each command prints, and its exit code."""

from __future__ import annotations

import io
import subprocess
import sys
from types import SimpleNamespace

import pytest

from sidecar import __version__
from sidecar.cli.admin_client import CommandResult
from sidecar.cli.main import main
from sidecar.core.key.keyring import parse
from sidecar.core.rules import Mode

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
    monkeypatch.setattr("sidecar.cli.main.os.environ", {})


@pytest.fixture
def write(tmp_path):
    """Writes a file; its path."""

    def write(name, text):
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


@pytest.mark.parametrize("word", ["version", "--version"])
def test_version_of_the_real_command(word):
    """``python -m sidecar version`` is the program, all of it; the option says the same."""
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", word], capture_output=True, text=True, timeout=15, check=False
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
        pytest.param(["purge"], id="purge-nothing"),
        pytest.param(["purge", "--tag", "a", "--route", "b"], id="purge-by-two"),
        pytest.param(["purge", "--tag", "a", "--all"], id="purge-by-tag-and-all"),
        pytest.param(["mode", "fast"], id="unknown-mode"),
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


def test_check_cautions(write, capsys):
    """What may be said and is better thought over is told, and the configuration is good all the same."""
    route = "  - {name: r, cache: {share: service, directives: ignore}}\n"
    path = write("c.yaml", "routes:\n" + route)
    code = main(["check", path])
    first, last = capsys.readouterr().out.splitlines()

    assert 0 == code
    assert first.startswith(f"warning: {path}:2: routes[0].cache.directives: together with `share` ")
    assert last.startswith(f"{path}: good; ")


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
    monkeypatch.setattr("sidecar.cli.main.sys.stdin", SimpleNamespace(buffer=io.BytesIO(REQUEST.encode())))
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
    monkeypatch.setattr("sidecar.cli.run.run", lambda config, **more: told.update(config=config, **more) or 7)
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
    monkeypatch.setattr("sidecar.cli.run.run", leave)
    monkeypatch.setattr("sidecar.cli.main.os.dup2", lambda *descriptors: redirected.append(descriptors))

    assert expected == main(["run"])
    assert (error is BrokenPipeError) is bool(redirected)


@pytest.fixture
def purged(monkeypatch):
    """What ``purge`` is told to purge; nothing is called."""
    told = []
    monkeypatch.setattr(
        "sidecar.cli.admin_client.purge", lambda _, *what, **how: told.append((*what, how)) or CommandResult(0, "ok")
    )
    return told


class Terminal(io.StringIO):
    """Somebody at a keyboard."""

    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("typed", "code"), [("y\n", 0), ("YES\n", 0), ("n\n", 1), ("\n", 1), ("", 1)], ids=["y", "yes", "n", "enter", "end"]
)
def test_purge_all_asks(write, purged, capsys, monkeypatch, typed, code):
    """Whoever sits at a terminal says that everything is meant."""
    monkeypatch.setattr("sidecar.cli.main.sys.stdin", Terminal(typed))

    assert code == main(["purge", "--config", write("c.yaml", GOOD), "--all"])
    assert ([] if code else [("all", "", {"dry_run": False})]) == purged
    assert "Purge every answer of this process? [y/N] " in capsys.readouterr().err


def test_purge_all_in_a_pipe(write, purged, capsys, monkeypatch):
    """Nobody can be asked, so nothing is done; the option is named."""
    monkeypatch.setattr("sidecar.cli.main.sys.stdin", io.StringIO("y\n"))
    path = write("c.yaml", GOOD)

    assert 2 == main(["purge", "--config", path, "--all"])
    assert [] == purged
    assert (
        "sidecar: --all purges every answer: add --yes, or --dry-run to count them first\n" == capsys.readouterr().err
    )
    assert 0 == main(["purge", "--config", path, "--all", "--yes"])
    assert 0 == main(["purge", "--config", path, "--all", "--dry-run"])
    assert [("all", "", {"dry_run": False}), ("all", "", {"dry_run": True})] == purged


def test_purge_by_a_request_that_is_not_there(write, purged, tmp_path, capsys):
    """Exit code 2, and which file."""
    code = main(["purge", "--config", write("c.yaml", GOOD), "--request", str(tmp_path / "none.http")])

    assert 2 == code
    assert f"{tmp_path}/none.http: No such file or directory\n" == capsys.readouterr().err
    assert [] == purged


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--for", "30m"], "sidecar: --for belongs to a mode; name normal, cache-off or passthrough before it\n"),
        (["cache-off", "--for", "30"], "sidecar: --for is a duration, such as 30m or 12h\n"),
    ],
    ids=["no-mode", "no-duration"],
)
def test_mode_wrong_usage(options, expected, capsys):
    """Exit code 2, and nothing is called."""

    assert 2 == main(["mode", *options])
    assert expected == capsys.readouterr().err


def test_mode_explains_its_modes(capsys):
    """Whoever asks for help at night reads what each mode does before one is set."""
    with pytest.raises(SystemExit) as left:
        main(["mode", "--help"])
    lines = capsys.readouterr().out.splitlines()

    assert 0 == left.value.code
    assert [mode.value for mode in Mode] == [
        line.split()[0] for line in lines[lines.index("modes:") + 1 :] if line.startswith("  ") and line[2] != " "
    ]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["stop", "openai", "us", "--for", "30"], "sidecar: --for is a duration, such as 30m or 12h\n"),
        (["stop", "openai"], "the following arguments are required: REGION"),
        (["auto", "openai", "us", "--for", "30m"], "unrecognized arguments: --for 30m"),
        (["ls", "openai"], "unrecognized arguments: openai"),
        (["shut", "openai", "us"], "invalid choice: 'shut'"),
        ([], "the following arguments are required: ls|stop|force|auto"),
    ],
    ids=["no-duration", "no-region", "auto-lasting", "ls-names", "unknown", "nothing"],
)
def test_region_wrong_usage(options, expected, capsys):
    """Exit code 2, and nothing is called."""
    try:
        code = main(["region", *options])
    except SystemExit as ended:
        code = ended.code

    assert 2 == code
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [["purge", "--tag", "a"], ["mode"], ["region", "ls"], ["region", "auto", "a", "b"]],
    ids=["purge", "mode", "regions", "region"],
)
def test_a_bad_configuration_is_not_acted_on(write, command, capsys):
    """Exit code 2: where to call stands in it."""
    assert 2 == main([*command, "--config", write("c.yaml", BAD)])
    assert "listen.port" in capsys.readouterr().err


def test_keygen(capsys, monkeypatch):
    """A line that a secret file may hold, another one each time; at a terminal also what to do with it."""
    codes = [main(["keygen"]), main(["keygen"])]
    out, err = capsys.readouterr()
    monkeypatch.setattr("sidecar.cli.main.sys.stdout", Terminal())
    codes.append(main(["keygen"]))

    assert ([0, 0, 0], "") == (codes, err)
    assert 2 == len(parse(out.encode()).keys)
    assert "cache.secret_file" in capsys.readouterr().err


def test_a_reader_of_keys_is_not_told_twice():
    """The real command: into a file goes the line and nothing else."""
    done = subprocess.run([sys.executable, "-m", "sidecar", "keygen"], capture_output=True, timeout=15, check=True)

    assert 1 == len(parse(done.stdout).keys)
    assert b"" == done.stderr
