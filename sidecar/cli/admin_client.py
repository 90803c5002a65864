"""
The commands that talk to a running sidecar: what they ask it, and what they report of its answer.

The rule: the sidecar is found by its configuration, and called directly, whatever egress proxy the environment names.
An error comes with its remedy. Nothing is printed here.
"""

from __future__ import annotations

import base64
import http.client
from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypeVar

from msgspec import Struct, json

from sidecar.admin.access import authority, read_token
from sidecar.admin.actions import ModeResult, PurgeResult, RegionResult, roughly
from sidecar.core.key.json_rule import UNREADABLE
from sidecar.core.region.regions import Standing
from sidecar.core.rules import Rules
from sidecar.settings.problems import nearest

TIMEOUT_SECONDS = 30.0

_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  where to call what listens there

Result = TypeVar("Result")


class CommandResult(NamedTuple):
    """The result of a command: its exit *code*, the *text* that was asked for, and *notes* for people."""

    code: int
    text: str = ""
    notes: tuple[str, ...] = ()


class _Status(Struct):
    """The part of a status that is read."""

    mode: ModeResult


class _Entries(Struct):
    """How many entries memory holds, by route."""

    routes: dict[str, int]


class _Stored(Struct):
    """The part of a status that tells what is stored."""

    memory: _Entries


class _Regions(Struct):
    """The part of the regions that is read."""

    regions: list[Standing]


_COLUMNS = (
    "SERVICE", "REGION", "PRIORITY", "WEIGHT", "RESIDENCY", "STATE", "SHARE", "UNTIL", "ORDER", "WINDOWS", "EXHAUSTED",
    "LATENCY",
)  # fmt: skip


def purge(rules: Rules, scope: str, value: str | bytes, *, dry_run: bool) -> CommandResult:
    """
    Purge by *scope*: ``route tag service key request request-id partition all``, and its *value*: the bytes of an
    HTTP request for ``request``, ``""`` for ``all``.
    """
    body = purge_body(scope, value, dry_run=dry_run)
    done = call(rules, PurgeResult, "/api/purge", body)
    if isinstance(done, CommandResult):
        return done
    count = f"{done.entries} {'entry' if done.entries == 1 else 'entries'}"
    notes = tuple(_unknown_name(rules, scope, str(body["value"])))
    if dry_run:
        return CommandResult(0, f"would purge {count} of this process", notes)
    if done.fleet == "done":
        return CommandResult(0, f"purged in the whole fleet; {count} of this process", notes)
    if done.fleet == "local" and rules.redis is not None:
        notes = (*notes, "what Redis has of it may come back from there")
    return CommandResult(0, f"purged {count} of this process", (*notes, _not_yet(rules, done.fleet)))


def purge_body(scope: str, value: str | bytes, *, dry_run: bool) -> Mapping[str, object]:
    """What a purge, or an erasure, is asked for with."""
    text = base64.b64encode(value).decode("ascii") if isinstance(value, bytes) else value
    return {"scope": scope, "value": text, "dry_run": dry_run}


def slip(rules: Rules, scope: str, name: str) -> CommandResult | None:
    """What to report of a purge by a route or service that the configuration does not know; None for any other."""
    for text in _unknown_name(rules, scope, name):
        return _failed(f"{text}; nothing was purged. A former {scope}'s answers are purged with --yes", 2)
    return None


def change_mode(rules: Rules, mode: str, lasting: str | None) -> CommandResult:
    """
    Change to *mode*, for as long as *lasting* says (``30m``). None: for 30 days in the fleet, and in a single process
    until the mode is changed again.
    """
    done = call(rules, ModeResult, "/api/mode", {"mode": mode} | ({} if lasting is None else {"for": lasting}))
    if isinstance(done, CommandResult):
        return done
    if done.fleet == "done":
        return CommandResult(0, f"{_mode(done)} in the whole fleet")
    return CommandResult(0, f"{_mode(done)} in this process", (_not_yet(rules, done.fleet),))


def show_mode(rules: Rules) -> CommandResult:
    """The mode in force, and how long."""
    status = call(rules, _Status, "/api/status")
    return status if isinstance(status, CommandResult) else CommandResult(0, _mode(status.mode))


def entries_by_route(rules: Rules) -> Mapping[str, int] | None:
    """How many entries the sidecar of *rules* holds in memory, by route; None if none can be asked."""
    status = call(rules, _Stored, "/api/status")
    return None if isinstance(status, CommandResult) else status.memory.routes


def show_regions(rules: Rules) -> CommandResult:
    """A table of how every region stands: one line for each; no cell is empty or has a blank in it."""
    known = call(rules, _Regions, "/api/regions")
    if isinstance(known, CommandResult):
        return known
    rows = [_COLUMNS, *map(_row, known.regions)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return CommandResult(0, "\n".join(lines))


def order_region(rules: Rules, action: str, service: str, region: str, lasting: str | None) -> CommandResult:
    """``stop``, ``force`` or ``auto`` (the breaker decides again) a region, for as long as *lasting* says (``30m``)."""
    body = {"service": service, "region": region, "action": action} | ({} if lasting is None else {"for": lasting})
    done = call(rules, RegionResult, "/api/regions", body)
    if isinstance(done, CommandResult):
        return done
    states = sorted({each.state for each in done.regions}) or ["not called yet"]
    text = f"{service} {region}: {', '.join(states)}"
    for each in done.regions[:1]:  # one order counts for all resources
        if each.order:
            end = "" if each.order_seconds is None else f" for {roughly(each.order_seconds)} more"
            text += f", by order {each.order}{end}"
    if done.fleet == "done":
        return CommandResult(0, f"{text}; in the whole fleet")
    note = f"this process only: {done.why}" if done.why else _not_yet(rules, done.fleet)
    return CommandResult(0, f"{text}; in this process", (note,))


def _row(each: Standing) -> tuple[str, ...]:
    return (
        f"{each.service}/{each.resource}" if each.resource else each.service,
        each.region,
        str(each.priority),
        str(each.weight),
        each.residency or "-",
        each.state,
        f"{each.share:.0%}",
        _short(each.seconds) if each.seconds else "-",
        _ending(each.order, each.order_seconds) or "-",
        f"{each.windows}:{_short(each.window_seconds)}" if each.windows else "-",
        str(each.exhausted or "-"),
        "-" if each.latency is None else f"{each.latency:.3f}s",
    )


def _ending(order: str, seconds: float | None) -> str:
    return order if seconds is None else f"{order}:{_short(seconds)}"


def _short(seconds: float) -> str:
    return roughly(seconds).replace(" ", "")


def _mode(result: ModeResult) -> str:
    mode = result.mode.value
    return mode if result.seconds is None else f"{mode} for {roughly(result.seconds)} more"


def _not_yet(rules: Rules, fleet: str) -> str:
    """Why the fleet does not know yet, and what to do about it."""
    if fleet == "pending":
        return (
            "pending: Redis is away, so the other pods do not know yet; this process tells them when it answers again"
        )
    if not rules.admin_token_file:
        return "this process only: for the whole fleet, set admin.token_file in every pod's configuration"
    return "this process only: it has no Redis in use to tell the fleet by; see cache.redis and cache.secret_file"


def _unknown_name(rules: Rules, scope: str, name: str) -> Iterable[str]:
    """A note about a name that the configuration does not know: it may be an old name or a mistake."""
    known = {"route": {route.name for route in rules.routes}, "service": {each.name for each in rules.services}}
    if scope in known and name not in known[scope]:
        meant = nearest(name, known[scope])
        yield f"the configuration has no {scope} {name}" + (f" (did you mean {meant}?)" if meant else "")


def call(
    rules: Rules,
    kind: type[Result],
    path: str,
    body: Mapping[str, object] | None = None,
    *,
    patience: float = TIMEOUT_SECONDS,
) -> Result | CommandResult:
    """
    Ask the admin address of *rules*, which may take *patience* seconds. Returns the answer of that *kind*, or what to
    report if there is none.
    """
    host, port = _WILDCARDS.get(rules.admin.host, rules.admin.host), rules.admin.port
    place = authority(host, port)
    if not port:
        return _failed("admin.port is 0, any free port, so it is not known where to call; give it a number", 2)
    headers = {"content-type": "application/json"}
    if rules.admin_token_file:
        try:
            headers["authorization"] = f"Bearer {read_token(rules.admin_token_file).decode('ascii')}"
        except ValueError as error:
            return _failed(f"there is no token to show: {error}; run this as who may read the file")
    connection = http.client.HTTPConnection(host, port, timeout=patience)
    try:
        if body is None:
            connection.request("GET", path, headers=headers)
        else:
            connection.request("POST", path, json.encode(body), headers)
        response = connection.getresponse()
        data = response.read()
        if response.status == 200:
            return json.decode(data, type=kind)
        return _refused(rules, **json.decode(data, type=dict[str, dict[str, str]])["error"])
    except ConnectionRefusedError:
        return _failed(f"nothing listens on {place}, the admin address of this configuration; "
                       "is the sidecar running, and with the same configuration?")  # fmt: skip
    except TimeoutError:
        return _failed(f"{place} did not answer within {patience:.0f} s; try again")
    except OSError as error:
        return _failed(f"{place} cannot be reached: {error.strerror or error}; check admin.host and admin.port")
    except (http.client.HTTPException, *UNREADABLE, KeyError, TypeError):
        return _failed(f"what listens on {place} does not answer as a sidecar; check admin.host and admin.port")
    finally:
        connection.close()


def _failed(text: str, code: int = 1) -> CommandResult:
    return CommandResult(code, notes=(text,))


def _refused(rules: Rules, code: str, message: str) -> CommandResult:
    """A refusal, with what the caller of the command can do about it."""
    match code:
        case "token-missing":
            text = "the sidecar asks for its token; name its file with admin.token_file in the configuration used here"
            return _failed(text)
        case "wrong-token":
            text = f"the sidecar has another token than {rules.admin_token_file}; use the file that is mounted there"
            return _failed(text)
        case "bad-request" | "too-large" | "unknown-service" | "unknown-region":
            return _failed(f"refused: {message}", 2)
        case _:
            return _failed(f"refused: {message}")
