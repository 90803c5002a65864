"""
Rules that change while the process runs: when they are read again, and what happens then.

The rule: a configuration is read and checked as a whole, in a thread, and only then adopted, in one step between two
awaits. One that is refused changes nothing. One reload at a time, whoever asks for it.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from sidecar.admin.actions import ReloadResult
from sidecar.app.adoption import Adoption
from sidecar.app.revision import Revision
from sidecar.app.wiring import Parts
from sidecar.core.events import TellEvent
from sidecar.core.rules import Rules
from sidecar.errors import ConfigError, Refused
from sidecar.settings import BUILT_IN
from sidecar.settings.difference import Effect, SettingChange, as_entries, effects, summary
from sidecar.settings.restart import effective, waiting
from sidecar.settings.watch import FileWatch

LOOK_SECONDS = 0.5
"""How often the folder is looked at."""

SETTLE_SECONDS = 0.1
SETTLE_LOOKS = 5
"""What has changed is read once it has stayed the same for a while, because it may still be written; or after so many
looks, because it may be written all the time."""

RETRY_LOOKS = 10
"""After so many looks, what was refused is read once more. The reason may lie elsewhere: a file that it names comes
later, or a port becomes free."""

BY_CHANGE, BY_RETRY = "change", "retry"
"""What asks for a reload if nobody does: something has changed on disk, or what was refused is tried again."""

MOST_PROBLEMS = 5
"""Problems of a refused configuration that are logged, each in a line of its own; `sidecar check` shows them all."""

_SWITCH_SECONDS = sys.getswitchinterval()
"""As the process has it. It is asked for once: of two reloads at a time one would restore what the other had set."""

_BUG = "it cannot be checked, because of a bug; the log's `bug` line says where"

_in_thread = asyncio.to_thread  # noqa: TID251  reads a disk, or a whole configuration


@dataclass(frozen=True, slots=True)
class Source:
    """
    Where rules come from: *load* reads them for a process that runs by others, or raises ``ConfigError``; *watch* tells
    when they may have changed since it was made. So *watch* is made before the process first reads its rules.
    """

    load: Callable[[], Rules]
    watch: FileWatch


class Comparison(NamedTuple):
    """What other rules change, in one line; what that means for stored answers; the keys that wait for a restart."""

    text: str
    effects: list[Effect]
    waiting: tuple[SettingChange, ...]


class Reloads:
    """
    Reads the rules of *source* again; None: they came from nowhere. *adoption* brings them into *parts*. *tell* logs
    events, *report* gets bugs, *now* is wall-clock seconds.
    """

    def __init__(
        self,
        source: Source | None,
        parts: Parts,
        adoption: Adoption,
        *,
        tell: TellEvent,
        report: Callable[[BaseException], None],
        now: Callable[[], float],
    ) -> None:
        self.source = source
        self._parts = parts
        self._adoption = adoption
        self._started = parts.rules
        self._tell = tell
        self._report = report
        self._now = now
        self._woken = asyncio.Event()
        self._asked = ""
        self._lock = asyncio.Lock()
        self._handled: tuple[bytes, dict[str, bytes]] | None = None  # what was looked at last
        self._files: dict[str, bytes] = {}  # the named files that are in use
        self._problems: tuple[str, ...] = ()
        self._looks = 0
        if source is not None:
            source.watch.follow(parts.rules)
            self._files = source.watch.look()[1]
            self._handled = source.watch.first, self._files

    def __repr__(self) -> str:
        return f"<Reloads from {self.source!r}>"

    async def watch(self, source: Source) -> None:
        """Look at the folder now and then, as long as the process runs."""
        while True:
            by = await self._pause()
            try:
                if by or await self._changed(source):
                    await self.reload(by or BY_CHANGE)
                elif self._is_due():
                    await self.reload(BY_RETRY)
            except Refused:
                pass  # it is logged and counted
            except Exception as error:  # noqa: BLE001  a bug here must not end the watching
                self._report(error)

    def wake(self, by: str) -> None:
        """*by* wants the configuration to be read now. Whoever comes while that is still to be done wants the same."""
        self._asked = by
        self._woken.set()

    async def _pause(self) -> str:
        """Wait until it is time to look again, or until somebody asks: who that is, else ``""``."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                await self._woken.wait()
        self._woken.clear()
        by, self._asked = self._asked, ""
        return by

    def _is_due(self) -> bool:
        """Whether it is time to read once more what was refused. A bug does not go away by itself."""
        self._looks += 1
        return self._looks >= RETRY_LOOKS and self._parts.revision.refused not in {"", _BUG}

    async def _changed(self, source: Source) -> bool:
        """Whether something has changed since it was looked at, and is not being written any more."""
        seen = await _in_thread(source.watch.look)
        for _ in range(SETTLE_LOOKS):
            if seen == self._handled:
                return False
            await asyncio.sleep(SETTLE_SECONDS)
            before, seen = seen, await _in_thread(source.watch.look)
            if seen == before:
                break
        return seen != self._handled

    async def reload(self, by: str) -> ReloadResult:
        """
        Read the configuration now; *by* says in the log what asked for it. Raises ``Refused`` if it cannot be used:
        then the last good one stays in use.
        """
        source = self.source
        if source is None:
            raise Refused(409, "no-source", "this process was not started from a configuration that can be read again")
        async with self._lock:
            self._looks = 0
            before = self._parts.revision.rules
            seen = self._handled = await _in_thread(source.watch.look)
            try:
                with _giving_way():
                    wanted = await _in_thread(source.load)
                    _check_kept(before, wanted)
                    rules = effective(self._started, wanted)
                    # in this order: a change between these two looks is seen now, and a later one at the next look
                    named = await _in_thread(partial(source.watch.named, rules))
                    present = await _in_thread(partial(source.watch.named, before))
                    files = tuple(name for name, content in present.items() if content != self._files.get(name))
                    prepared = await _in_thread(partial(self._adoption.prepare, rules, files))
                    compared = await _in_thread(partial(_compare, self._started, before, rules, wanted, files=files))
                close_others = await self._adoption.open(rules)
            except ConfigError as error:
                raise self._refuse(error.problems, by) from None
            except OSError as error:
                raise self._refuse((_unbound(error),), by) from None
            except Exception as error:  # noqa: BLE001  a bug here must not take the rules away
                self._report(error)
                raise self._refuse((_BUG,), by) from None
            revision = Revision(rules, self._now(), compared.waiting)
            if files or rules != before:
                self._adoption.adopt(prepared, revision)
            else:
                self._parts.revision = revision
            close_others()
            self._problems = ()
            source.watch.follow(rules)
            self._files = named
            self._handled = seen[0], named
            return await self._accepted(before, rules, compared, by)

    async def _accepted(self, before: Rules, rules: Rules, compared: Comparison, by: str) -> ReloadResult:
        """Say what has changed, in the log and to whoever asked."""
        found = compared.effects
        entries = await self._parts.operations.entries_by_route() if found else {}
        waits = [change.path for change in compared.waiting]
        for line in rules.warnings:
            if line not in before.warnings:
                self._tell("config-warning", level="warning", message=line)
        more = {
            "answers_away": _shown([each for each in found if not each.back], entries),
            "answers_back": _shown([each for each in found if each.back], entries),
            "needs_restart": ", ".join(waits),
        }
        self._tell(
            "config-reloaded",
            level="warning" if waits else "info",
            by=by,
            file=rules.source,
            revision=rules.revision,
            changes=compared.text,
            **{name: text for name, text in more.items() if text},
        )
        return ReloadResult(
            revision=rules.revision,
            changes=compared.text,
            effects=[str(each) for each in found],
            needs_restart=waits,
            warnings=list(rules.warnings),
        )

    def _refuse(self, problems: tuple[str, ...], by: str) -> Refused:
        """
        The configuration cannot be used: keep the last good one, and say so. The same problems are said again only to
        somebody who asks.
        """
        before = self._parts.revision
        if problems != self._problems or by not in {BY_CHANGE, BY_RETRY}:
            for problem in problems[:MOST_PROBLEMS]:
                self._tell("config-problem", level="error", message=problem)
            self._tell(
                "config-refused",
                level="error",
                by=by,
                problems=len(problems),
                revision=before.rules.revision,
                message="the last good configuration stays in use",
            )
        self._problems = problems
        text = "; ".join(problems[:MOST_PROBLEMS])
        self._parts.revision = Revision(before.rules, before.loaded_at, before.waiting, text)
        return Refused(422, "config-refused", text)


@contextmanager
def _giving_way() -> Iterator[None]:
    """
    Let the event loop go first while a thread reads a configuration: the thread gives the interpreter back five times
    as often, and the garbage collector, which would look through all that is being read, does not run. What the thread
    leaves has no cycles to speak of.
    """
    collects = gc.isenabled()
    gc.disable()
    sys.setswitchinterval(_SWITCH_SECONDS / 5)
    try:
        yield
    finally:
        sys.setswitchinterval(_SWITCH_SECONDS)
        if collects:
            gc.enable()


def _compare(started: Rules, before: Rules, after: Rules, wanted: Rules, *, files: tuple[str, ...]) -> Comparison:
    """See ``Comparison``; *files* have other content. With hundreds of routes it takes long enough for a thread."""
    return Comparison(summary(before, after, files), effects(before, after), waiting(started, wanted))


def _check_kept(before: Rules, wanted: Rules) -> None:
    """A configuration that has vanished is not the wish for the built-in settings. Raises ``ConfigError``."""
    if wanted.source == BUILT_IN != before.source:
        remedy = "put it back, or restart to run with the built-in settings"
        raise ConfigError((f"{before.source}: is gone; {remedy}",))


def _unbound(error: OSError) -> str:
    return f"a port cannot be opened: {error.strerror or error}; choose another, or free it and send SIGHUP"


def _shown(found: list[Effect], entries: Mapping[str, int]) -> str:
    """The routes, each with the number of its entries here."""
    whole = {each.route for each in found if each.whole}
    return ", ".join(
        f"{route} ({as_entries(entries.get(route, 0), whole=route in whole)})"
        for route in dict.fromkeys(each.route for each in found)
    )
