"""
Turns what Python and the libraries would write to standard error into lines of our log.

The rule: a line says the kind of event and where in the code it happened, never its text: the text of an exception, a
warning or another log line may quote a call. What C code writes itself (``faulthandler``) cannot be caught.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import traceback
import warnings
from typing import Any

from sidecar.core.events import TellEvent

_STEPS = 3


def trail(error: BaseException) -> str:
    """Where *error* was raised, the innermost step first: files, lines and functions."""
    steps = traceback.extract_tb(error.__traceback__)[-_STEPS:]
    return " < ".join(f"{_short(step.filename)}:{step.lineno} {step.name}" for step in reversed(steps))


class Strays:
    """Catches all output of one process that would bypass its log. ``install`` once, in the event loop that runs it."""

    def __init__(self, tell: TellEvent) -> None:
        self._tell = tell
        self._handler = _Handler(self)

    def __repr__(self) -> str:
        return "<Strays>"

    def install(self) -> None:
        """From now on all such output becomes lines, until the process ends."""
        root = logging.getLogger()
        root.handlers[:] = [self._handler]
        root.setLevel(logging.WARNING)
        logging.raiseExceptions = False  # otherwise errors in logging are written beside the log
        warnings.showwarning = self._warned
        sys.excepthook = lambda kind, error, trace: self.failed("crashed", error)  # noqa: ARG005 - theirs
        sys.unraisablehook = lambda raised: self.failed("unraisable", raised.exc_value, raised.exc_type)
        threading.excepthook = lambda raised: self.failed("thread-failed", raised.exc_value, raised.exc_type)
        asyncio.get_running_loop().set_exception_handler(self._of_loop)

    def failed(self, event: str, error: BaseException | None, kind: type[BaseException] | None = None) -> None:
        """Nobody caught *error*; *kind* is its type if there is nothing more."""
        name = type(error).__name__ if error is not None else kind.__name__ if kind is not None else ""
        self._tell(event, level="error", error=name, trail=trail(error) if error is not None else "")

    def logged(self, record: logging.LogRecord) -> None:
        """A library has logged something."""
        error = record.exc_info[1] if record.exc_info else None
        fields = {} if error is None else {"error": type(error).__name__, "trail": trail(error)}
        self._tell(
            "library-log",
            level="error" if record.levelno >= logging.ERROR else "warning",
            logger=record.name[:100],
            where=f"{_short(record.pathname)}:{record.lineno}",
            **fields,
        )

    def _warned(self, message: Any, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any) -> None:
        del message  # it may quote anything
        self._tell("python-warning", level="warning", category=category.__name__, where=f"{_short(filename)}:{lineno}")

    def _of_loop(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A task or callback has failed, and nobody read its exception."""
        self.failed("loop-error", context.get("exception"))


class _Handler(logging.Handler):
    def __init__(self, strays: Strays) -> None:
        super().__init__(logging.WARNING)
        self._strays = strays

    def emit(self, record: logging.LogRecord) -> None:
        self._strays.logged(record)


def _short(path: str) -> str:
    return path.rpartition("/")[2]
