"""What would go past the log: a process in which all of it happens, and the lines that come of it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from sidecar.sinks.strays import trail

SECRET = "correct-horse-battery"  # pragma: allowlist secret

PROGRAM = """
import asyncio, gc, logging, sys, threading, time, warnings
import uvloop
from sidecar.sinks.log import AccessLog, Pipe
from sidecar.sinks.strays import Strays

SECRET = sys.argv[1]

def fail():
    raise ValueError(SECRET)

async def fail_later():
    fail()

class Quoting(Exception):
    def __str__(self):
        raise RuntimeError(SECRET)
    __repr__ = __str__

class Unraisable:
    def __del__(self):
        fail()

async def main():
    Strays(AccessLog(Pipe(2), now=time.time).event).install()
    loop = asyncio.get_running_loop()
    logging.getLogger("aiohttp.server").error("Error handling request from %s", SECRET)
    logging.warning("%d", SECRET)
    logging.getLogger("asyncio").critical("x", exc_info=Quoting(SECRET))
    try:
        fail()
    except ValueError:
        logging.exception(SECRET)
    logging.info(SECRET)
    warnings.warn(SECRET, stacklevel=1)
    asyncio.create_task(fail_later(), name=SECRET)
    loop.call_soon(fail)
    loop.call_exception_handler({"message": SECRET})
    Unraisable()
    thread = threading.Thread(target=fail, name=SECRET)
    thread.start()
    thread.join()
    await asyncio.sleep(0.01)
    gc.collect()
    raise KeyError(SECRET)

with asyncio.Runner(loop_factory=%s) as runner:
    runner.run(main())
"""


@pytest.mark.parametrize("loop", ["uvloop.new_event_loop", "asyncio.new_event_loop"])
def test_everything_is_a_line(loop):
    """Whoever says it: the kind and the place, and not a word of what was said."""
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", PROGRAM.replace("%s) as", f"{loop}) as"), SECRET],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]

    assert 1 == done.returncode
    assert "" == done.stdout
    assert SECRET not in done.stderr
    assert {
        ("library-log", "error", "aiohttp.server", None),
        ("library-log", "warning", "root", None),
        ("library-log", "error", "asyncio", "Quoting"),
        ("library-log", "error", "root", "ValueError"),
        ("python-warning", "warning", None, None),
        ("loop-error", "error", None, "ValueError"),
        ("loop-error", "error", None, ""),
        ("unraisable", "error", None, "ValueError"),
        ("thread-failed", "error", None, "ValueError"),
        ("crashed", "error", None, "KeyError"),
    } == {(line["event"], line["level"], line.get("logger"), line.get("error")) for line in lines}
    assert all(line.get("where") or line["error"] == "" or line["trail"] for line in lines)


def test_a_trail():
    """The innermost step first."""

    def inner():
        raise ValueError(SECRET)

    with pytest.raises(ValueError, match=SECRET) as caught:
        inner()

    assert trail(caught.value).startswith("test_strays.py:")
    assert " inner < test_strays.py:" in trail(caught.value)
