"""
The commands.

The rule: a command imports only what it needs. Its messages are for people: what happened, and what to do about it.
Exit codes: 0 good, 1 failed, 2 wrong usage or configuration.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sidecar import __version__
from sidecar.cli import pod_commands
from sidecar.cli.standard_streams import open_standard_streams
from sidecar.core.durations import seconds_of
from sidecar.core.region.orders import AUTO, FORCE, FORMER, STOP
from sidecar.errors import ConfigError

if TYPE_CHECKING:
    from sidecar.cli.admin_client import CommandResult

_SCOPES = ("route", "tag", "service", "key", "request", "request_id", "partition")

_KEYGEN_HINT = """\
This is a secret. Put it into the file of cache.secret_file, the same in every pod: sidecar keygen > FILE.
To rotate: add the new line below the old one in every pod; then move it above the old one. When everything that
was written under the old one has expired, remove the old one."""


_MODES = """\
modes:
  normal        answers are looked up, kept and shared as the routes say
  cache-off     nothing is looked up, kept or shared: each call goes to its service.
                Regions, failover, limits, retries and fallbacks work as before
  passthrough   like cache-off; a later version may switch off more, if it changes
                calls in other ways

Without a mode, the one in force is shown. `sidecar mode normal` ends another."""

_YES = "do not ask before --all; accept a --route or --service that the configuration does not know"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    open_standard_streams()
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.command(arguments)
    except ConfigError as error:
        for line in error.problems:
            print(line, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sidecar", description="A caching proxy for AI calls, beside every application pod."
    )
    parser.add_argument("--version", action="version", version=f"sidecar {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run the proxy")
    _takes_config(run)
    run.add_argument("--port", type=int, help="the port that applications call (default 7400)")
    run.add_argument("--demo", action="store_true", help="with a stand-in provider and a small workload; no key needed")
    run.add_argument(
        "--on-bad-config",
        choices=("exit", "passthrough"),
        default="exit",
        help="passthrough: if the configuration cannot be read, only forward calls, and say so",
    )
    run.set_defaults(command=_run)

    check = commands.add_parser("check", help="every problem of a configuration, with file, line and path")
    check.add_argument("config", metavar="FILE|DIR")
    check.set_defaults(command=_check)

    difference = commands.add_parser(
        "diff", help="what a change of rules changes, and which routes' answers it takes away"
    )
    difference.add_argument("old", metavar="OLD")
    difference.add_argument("new", metavar="NEW")
    difference.set_defaults(command=_diff)

    explain = commands.add_parser("explain", help="how a request is decided, and why; sends nothing")
    _takes_config(explain)
    explain.add_argument(
        "request", metavar="REQUEST.http", help="a request as it goes over the wire; - for standard input"
    )
    explain.set_defaults(command=_explain)

    purge = commands.add_parser("purge", help="drop stored answers, in the whole fleet")
    _takes_config(purge)
    _takes_scope(purge)
    purge.add_argument("--dry-run", action="store_true", help="only count")
    purge.add_argument(
        "--erase",
        action="store_true",
        help="also delete what is purged: from Redis and from the memory of every pod; prints a receipt",
    )
    purge.add_argument(
        "--wait", metavar="30s", help="how long --erase waits for the other pods, 1s to 15m (default 30s)"
    )
    purge.add_argument("--yes", action="store_true", help=_YES)
    purge.set_defaults(command=_purge)

    mode = commands.add_parser(
        "mode",
        help="show or change the mode of the whole fleet",
        description="Show or change the mode of the whole fleet; without admin.token_file, of one process.",
        epilog=_MODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _takes_config(mode)
    mode.add_argument("mode", nargs="?", choices=("normal", "cache-off", "passthrough"), help="default: show it")
    mode.add_argument("--for", dest="lasting", metavar="30m", help=_lasting("it is changed again"))
    mode.set_defaults(command=_mode)

    region = commands.add_parser("region", help="show or change which regions take calls, for the whole fleet")
    deeds = region.add_subparsers(required=True, metavar="ls|stop|force|auto")
    listing = deeds.add_parser("ls", help="show how every region stands, one a line")
    _takes_config(listing)
    listing.set_defaults(command=_regions)
    for action, what in (
        (STOP, "send no calls there"),
        (FORCE, "send calls there whatever happens"),
        (AUTO, "end the order; the region's breaker decides again"),
    ):
        deed = deeds.add_parser(action, help=what)
        _takes_region(deed, action)
    for former, action in FORMER.items():
        _takes_region(deeds.add_parser(former), action, former)  # no help: the old word is only understood

    pod_commands.add(commands)
    keygen = commands.add_parser("keygen", help="print a new line for the file of cache.secret_file")
    keygen.set_defaults(command=_keygen)

    version = commands.add_parser("version", help="print the version of this program")
    version.set_defaults(command=_version)
    return parser


def _takes_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE|DIR", help="default: /etc/sidecar if it exists, else built in")


def _takes_region(deed: argparse.ArgumentParser, action: str, former: str = "") -> None:
    """The options of an order about a region; *former*: the command used a word of the last version."""
    _takes_config(deed)
    deed.add_argument("service", metavar="SERVICE")
    deed.add_argument("region", metavar="REGION")
    if action != AUTO:
        deed.add_argument("--for", dest="lasting", metavar="30m", help=_lasting("`auto` ends it"))
    deed.set_defaults(command=_region, action=action, former=former, lasting=None)


def _lasting(end: str) -> str:
    return f"how long, 1s to 30d; without: 30d in the fleet, and in a single process until {end}"


def _takes_scope(parser: argparse.ArgumentParser) -> None:
    scope = parser.add_mutually_exclusive_group(required=True)
    for name, metavar, what in (
        ("route", "R", "the answers of a route"),
        ("tag", "T", "those with a tag"),
        ("service", "S", "those of a service"),
        ("key", "K", "the answer of a key: 32 hexadecimal digits"),
        ("request", "FILE", "the answer to a request as it goes over the wire; - for standard input"),
        ("request-id", "ID", "the answer that a call got: its x-sidecar-request-id"),
        ("partition", "P", "the answers of one partition, as `sidecar explain` shows it: 32 hexadecimal digits"),
    ):
        scope.add_argument(f"--{name}", metavar=metavar, help=what)
    scope.add_argument("--all", action="store_true", help="every answer")


def _run(arguments: argparse.Namespace) -> int:
    from sidecar.cli.run import run

    return run(
        arguments.config,
        port=arguments.port,
        demo=arguments.demo,
        passthrough_on_bad_config=arguments.on_bad_config == "passthrough",
    )


def _check(arguments: argparse.Namespace) -> int:
    from sidecar.settings import load

    rules = load(arguments.config, environ=os.environ, overrides={}, strict=True)
    for line in rules.warnings:
        print(f"warning: {line}")
    print(f"{arguments.config}: good; {len(rules.services)} services, {len(rules.routes)} routes.")
    return 0


def _diff(arguments: argparse.Namespace) -> int:
    from sidecar.cli.admin_client import entries_by_route
    from sidecar.cli.diff import diff
    from sidecar.settings import load

    old, new = (load(path, environ=os.environ, overrides={}, strict=False) for path in (arguments.old, arguments.new))
    entries = entries_by_route(old)
    print(diff(old, new, entries))
    for line in new.warnings:
        print(f"sidecar: warning: {line}", file=sys.stderr)
    if entries is None:
        print("sidecar: no sidecar of OLD answers here, so its entries are not counted", file=sys.stderr)
    return 0


def _explain(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from sidecar.cli.explain import explain
    from sidecar.settings import load

    rules = load(arguments.config, environ=os.environ, overrides={}, strict=False)
    source = arguments.request
    try:
        raw = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except OSError as error:
        print(f"{source}: {error.strerror}", file=sys.stderr)
        return 2
    text, good = explain(rules, raw)
    print(text)
    return 0 if good else 2


def _purge(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from sidecar.cli.admin_client import purge, slip
    from sidecar.settings import load

    if arguments.wait is not None and (not arguments.erase or seconds_of(arguments.wait) is None):
        print("sidecar: --wait belongs to --erase, and is a duration, such as 30s or 2m", file=sys.stderr)
        return 2
    said = {name.replace("_", "-"): getattr(arguments, name) for name in _SCOPES}
    scope, given = next(((name, value) for name, value in said.items() if value is not None), ("all", ""))
    value: str | bytes = given
    if scope == "request":
        try:
            value = sys.stdin.buffer.read() if given == "-" else Path(given).read_bytes()
        except OSError as error:
            print(f"{given}: {error.strerror}", file=sys.stderr)
            return 2
    rules = load(arguments.config, environ=os.environ, overrides={}, strict=False)
    if not arguments.yes and (wrong := slip(rules, scope, given)):
        return _tell(wrong)
    if (
        scope == "all"
        and not (arguments.yes or arguments.dry_run)
        and (code := _unsure(fleet=bool(rules.admin_token_file)))
    ):
        return code
    if arguments.erase:
        from sidecar.cli.erasing import erase

        return _tell(erase(rules, scope, value, dry_run=arguments.dry_run, wait=arguments.wait))
    return _tell(purge(rules, scope, value, dry_run=arguments.dry_run))


def _unsure(*, fleet: bool) -> int:
    """Ask whether all answers should be purged: 0 for yes, otherwise the exit code."""
    if not sys.stdin.isatty():
        print("sidecar: --all purges every answer: add --yes, or --dry-run to count them first", file=sys.stderr)
        return 2
    whose = "the whole fleet" if fleet else "this process"
    print(f"Purge every answer of {whose}? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() in {"y", "yes"}:
        return 0
    print("sidecar: nothing was purged", file=sys.stderr)
    return 1


def _mode(arguments: argparse.Namespace) -> int:
    from sidecar.cli.admin_client import change_mode, show_mode
    from sidecar.settings import load

    if arguments.lasting is not None and arguments.mode is None:
        print("sidecar: --for belongs to a mode; name normal, cache-off or passthrough before it", file=sys.stderr)
        return 2
    if not _lasts(arguments.lasting):
        return 2
    rules = load(arguments.config, environ=os.environ, overrides={}, strict=False)
    return _tell(change_mode(rules, arguments.mode, arguments.lasting) if arguments.mode else show_mode(rules))


def _lasts(lasting: str | None) -> bool:
    """Whether ``--for`` is a duration or missing; prints an error if it is neither."""
    good = lasting is None or seconds_of(lasting) is not None
    if not good:
        print("sidecar: --for is a duration, such as 30m or 12h", file=sys.stderr)
    return good


def _regions(arguments: argparse.Namespace) -> int:
    from sidecar.cli.admin_client import show_regions
    from sidecar.settings import load

    return _tell(show_regions(load(arguments.config, environ=os.environ, overrides={}, strict=False)))


def _region(arguments: argparse.Namespace) -> int:
    from sidecar.cli.admin_client import order_region
    from sidecar.settings import load

    if not _lasts(arguments.lasting):
        return 2
    if arguments.former:
        text = f"`region {arguments.former}` is called `region {arguments.action}` now"
        print(f"sidecar: {text}; the next version does not know the old word", file=sys.stderr)
    rules = load(arguments.config, environ=os.environ, overrides={}, strict=False)
    return _tell(order_region(rules, arguments.action, arguments.service, arguments.region, arguments.lasting))


def _tell(result: CommandResult) -> int:
    """Print the result of a command to a running sidecar; returns the exit code."""
    if result.text:
        print(result.text)
    for note in result.notes:
        print(f"sidecar: {note}", file=sys.stderr)
    return result.code


def _keygen(_: argparse.Namespace) -> int:
    from sidecar.cli.keygen import line

    print(line())
    if sys.stdout.isatty():
        print(_KEYGEN_HINT, file=sys.stderr)
    return 0


def _version(_: argparse.Namespace) -> int:
    print(f"sidecar {__version__}")
    return 0
