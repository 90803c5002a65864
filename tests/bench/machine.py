"""
The machine that is measured on: its cores, its free ports, and the processes that run there.

The rule: the server under test has the first core, everything else shares the second, so that a faster load generator
never takes time from the server.
"""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Self

_CORES = sorted(os.sched_getaffinity(0))
_TICKS = os.sysconf("SC_CLK_TCK")
_ADMIN_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"))

SERVER_CORE = _CORES[0]
LOAD_CORE = _CORES[1 % len(_CORES)]


def tool(name: str) -> str | None:
    """The path of an installed program, also where only the administrator's PATH has it."""
    return shutil.which(name, path=_ADMIN_PATH)


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """This thread, and what it starts, on *core* while the ``with`` block runs."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Process:
    """
    A running program, stopped at the end of the ``with`` block.

    *name* is for messages; what it prints goes to *log*. ``launched`` is ``time.perf_counter`` just before it began.
    """

    def __init__(
        self, name: str, argv: Sequence[str], *, core: int, log: Path, environ: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self._log = log
        with log.open("wb") as output:
            self.launched = time.perf_counter()
            self._popen = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if environ is None else dict(environ),
                preexec_fn=partial(os.sched_setaffinity, 0, {core}),  # noqa: PLW1509  no threads run yet
            )

    def __repr__(self) -> str:
        return f"<Process {self.name} {self._popen.pid}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> int:
        """Ask it to end; after 10 seconds, end it. Returns its exit code; it is below 0 where a signal ended it."""
        self._popen.terminate()
        try:
            return self._popen.wait(10)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            return self._popen.wait()

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._popen.send_signal(number)

    def await_port(self, port: int, *, seconds: float = 20.0) -> None:
        """Wait until it accepts connections. Raises ``RuntimeError`` with its last words where it doesn't."""
        until = time.perf_counter() + seconds
        while time.perf_counter() < until and self._popen.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                time.sleep(0.005)
            else:
                return
        raise RuntimeError(f"{self.name} did not start: {self.last_words()}")

    def last_words(self) -> str:
        """The end of what it printed."""
        return self._log.read_text(errors="replace").strip()[-3000:] or "it said nothing"

    def output(self) -> str:
        """All that it printed so far."""
        return self._log.read_text(errors="replace")

    def alive(self) -> bool:
        """Whether it still runs."""
        return self._popen.poll() is None

    def cpu_seconds(self) -> float:
        """Processor time so far, children included."""
        return sum(_cpu_seconds(pid) for pid in self._family())

    def memory(self) -> dict[str, float]:
        """MiB: resident size ``rss``, its peak ``peak``, and ``pss``, where shared pages count by share."""
        status = _fields(f"/proc/{self._popen.pid}/status")
        found = {"rss": _mib(status["VmRSS"]), "peak": _mib(status["VmHWM"])}
        with suppress(OSError, KeyError):  # not every kernel or container tells
            found["pss"] = _mib(_fields(f"/proc/{self._popen.pid}/smaps_rollup")["Pss"])
        return found

    def threads(self) -> int:
        """How many it has."""
        return int(_fields(f"/proc/{self._popen.pid}/status")["Threads"])

    def descriptors(self) -> int:
        """How many files and sockets it has open."""
        return sum(1 for _ in Path(f"/proc/{self._popen.pid}/fd").iterdir())

    def sockets(self) -> int:
        """How many it has open."""
        found = 0
        for entry in Path(f"/proc/{self._popen.pid}/fd").iterdir():
            with suppress(OSError):  # closed just now
                found += str(entry.readlink()).startswith("socket:")
        return found

    def _family(self) -> list[int]:
        pid = self._popen.pid
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        except OSError:
            return [pid]
        return [pid, *map(int, children.split())]


def facts() -> dict[str, str]:
    """What numbers of this run depend on."""
    nginx, wrk = tool("nginx"), tool("wrk")
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _fields("/proc/cpuinfo").get("model name", platform.machine()),
        "cores": f"{len(_CORES)} usable, server on {SERVER_CORE}, load on {LOAD_CORE}",
        "kernel": platform.release(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "uvloop": version("uvloop"),
        "httptools": version("httptools"),
        "aiohttp": version("aiohttp"),
        "nginx": _first_line(nginx, "-v").removeprefix("nginx version: ") if nginx else "none",
        "wrk": " ".join(_first_line(wrk, "-v").split()[:2]) if wrk else "none",
        "load_average_before": f"{os.getloadavg()[0]:.2f}",
    }


def _first_line(*argv: str) -> str:
    ran = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return ran.stdout.partition("\n")[0]


def _cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _fields(path: str) -> dict[str, str]:
    lines = (line.partition(":") for line in Path(path).read_text().splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}


def _mib(text: str) -> float:
    return int(text.split(maxsplit=1)[0]) / 1024
