"""
The commands.

The rule: a command imports what it needs and nothing else, and its messages are for people: what happened, and what
to do about it. Exit codes: 0 good, 1 failed, 2 wrong usage or configuration.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from sidecar import __version__
from sidecar.errors import ConfigError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
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
        prog="sidecar", description="The proxy beside every pod that makes AI traffic cheap."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run the proxy")
    _takes_config(run)
    run.add_argument("--port", type=int, help="the port that applications call (default 7400)")
    run.add_argument("--demo", action="store_true", help="with a stand-in provider and a small workload; no key needed")
    run.add_argument(
        "--on-bad-config",
        choices=("exit", "passthrough"),
        default="exit",
        help="passthrough: a configuration that cannot be read means plain forwarding, loudly",
    )
    run.set_defaults(command=_run)

    check = commands.add_parser("check", help="every problem of a configuration, with file, line and path")
    check.add_argument("config", metavar="FILE|DIR")
    check.set_defaults(command=_check)

    explain = commands.add_parser("explain", help="how a request is decided, and why")
    _takes_config(explain)
    explain.add_argument(
        "request", metavar="REQUEST.http", help="a request as it goes over the wire; - for standard input"
    )
    explain.set_defaults(command=_explain)

    version = commands.add_parser("version", help="the version of this program")
    version.set_defaults(command=_version)
    return parser


def _takes_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE|DIR", help="default: /etc/sidecar if it exists, else built in")


def _run(arguments: argparse.Namespace) -> int:
    from sidecar.running import run  # noqa: PLC0415  each command imports only what it needs

    return run(
        arguments.config,
        port=arguments.port,
        demo=arguments.demo,
        passthrough_on_bad_config=arguments.on_bad_config == "passthrough",
    )


def _check(arguments: argparse.Namespace) -> int:
    from sidecar.settings import load  # noqa: PLC0415  as above

    rules = load(arguments.config, environ=os.environ, overrides={}, strict=True)
    print(f"{arguments.config}: good; {len(rules.services)} services, {len(rules.routes)} routes.")
    return 0


def _explain(arguments: argparse.Namespace) -> int:
    from pathlib import Path  # noqa: PLC0415  as above

    from sidecar.explain import explain  # noqa: PLC0415  as above
    from sidecar.settings import load  # noqa: PLC0415  as above

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


def _version(_: argparse.Namespace) -> int:
    print(f"sidecar {__version__}")
    return 0
