"""
The commands about pods: inject, uninject, webhook.

The rule: as in ``main``: a command imports only what it needs, when it runs.
"""

from __future__ import annotations

import argparse
import os
import sys

from sidecar.core.durations import seconds_of

LEAST_LIFE_SECONDS = 15.0
"""Of a certificate; the API server needs some of it to learn the next one."""

_EXAMPLES = {"certificate_life": "90d, of at least 15s", "drain": "5s"}

_OUTPUT = (
    "The manifests go to standard output, in one stream; what became of each, to standard error. They mean what they "
    "meant; comments and layout are lost."
)
_CODES = "Exit codes: 0 done, 2 a manifest, an option or the configuration cannot be used."
_CONFIG = "the sidecars' configuration; default: /etc/sidecar if it exists, else built in"


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands to those of the program."""
    injection = commands.add_parser(
        "inject",
        help="put the sidecar into every pod of manifests, as the admission webhook does",
        epilog=f"{_OUTPUT} A pod that is kept as it is, is no error. {_CODES}",
    )
    injection.add_argument("--config", metavar="FILE|DIR", help=_CONFIG)
    _takes_manifests(injection)
    injection.add_argument("--image", help="the image of the sidecar, best by digest")
    injection.add_argument("--cluster-version", default="", metavar="1.29", help="default: the newest known")
    _takes_architectures(injection)
    injection.add_argument(
        "--report", action="store_true", help="only say of each workload whether its calls will arrive, and by what"
    )
    injection.set_defaults(command=_inject)
    undoing = commands.add_parser("uninject", help="take it out of them again", epilog=f"{_OUTPUT} {_CODES}")
    _takes_manifests(undoing)
    undoing.set_defaults(command=_uninject)
    waiting = commands.add_parser("wait", help="wait until the sidecar is ready, then run a command, for old clusters")
    waiting.add_argument("--config", metavar="FILE|DIR", help=_CONFIG)
    waiting.add_argument("--for", dest="lasting", default="60s", metavar="60s", help="how long at most (default 60s)")
    waiting.add_argument(
        "run", nargs="*", metavar="COMMAND", help="after --: what runs then, in any case; without: the exit code tells"
    )
    waiting.set_defaults(command=_wait)
    serving = commands.add_parser("webhook", help="the admission server that injects pods as they are created")
    serving.add_argument("--config", metavar="FILE|DIR", help=_CONFIG)
    serving.add_argument(
        "--image", default="", help="the image of the sidecar, by digest; default: that of the pod POD_NAME, its own"
    )
    serving.add_argument(
        "--cluster-version", default="", metavar="1.29", help="default: the oldest of the API server and its nodes"
    )
    _takes_architectures(serving)
    serving.add_argument("--host", default="0.0.0.0", help="default: %(default)s")  # noqa: S104  the API server calls it
    serving.add_argument("--port", type=int, default=8443, help="default: %(default)s")
    serving.add_argument("--health-port", type=int, default=8081, help="default: %(default)s")
    serving.add_argument(
        "--tls-cert", default="", metavar="FILE", help="its certificate, PEM; default: it makes its own, in a Secret"
    )
    serving.add_argument("--tls-key", default="", metavar="FILE", help="the key of that, PEM; both may be replaced")
    serving.add_argument(
        "--certificate-life", default="90d", metavar="90d", help="of its own certificates (default 90d)"
    )
    serving.add_argument(
        "--hostname", action="append", default=[], metavar="NAME", help="a further name in its own certificate"
    )
    serving.add_argument(
        "--name", default="ai-sidecar-webhook", help="of its Service and webhook configurations (default %(default)s)"
    )
    serving.add_argument("--revision", default="", metavar="NAME", help="stands in the status of the pods it injects")
    serving.add_argument("--sync", action="store_true", help="copy the ConfigMap into all labelled namespaces")
    serving.add_argument("--service-account", default="", metavar="DIR", help="default: where kubelet puts it")
    serving.add_argument("--drain", default="5s", metavar="5s", help="how long it answers after SIGTERM (default 5s)")
    serving.set_defaults(command=_webhook)


def _takes_architectures(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--architectures",
        default="",
        metavar="amd64,arm64",
        help="what the image is built for (default amd64,arm64); a pod that asks for another one is kept",
    )


def _takes_manifests(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-f",
        "--file",
        dest="files",
        action="append",
        required=True,
        metavar="FILE|DIR",
        help="manifests: a file, the .yaml, .yml and .json files of a folder, or - for standard input; may be repeated",
    )


def _inject(arguments: argparse.Namespace) -> int:
    from sidecar.cli.inject import IMAGE, NO_IMAGE, inject, injection, report
    from sidecar.inject.files import texts
    from sidecar.settings import load

    rules = load(arguments.config, environ=os.environ, overrides={}, strict=False)
    settings = injection(
        rules,
        image=arguments.image or IMAGE,
        version=arguments.cluster_version,
        architectures=arguments.architectures,
    )
    manifests = texts(arguments.files)
    if arguments.report:
        print(report(manifests, settings))
        return 0
    text, notes = inject(manifests, settings)
    return _changed(text, notes if arguments.image else [NO_IMAGE, *notes])


def _uninject(arguments: argparse.Namespace) -> int:
    from sidecar.cli.inject import uninject
    from sidecar.inject.files import texts

    return _changed(*uninject(texts(arguments.files)))


def _wait(arguments: argparse.Namespace) -> int:
    from sidecar.cli.wait import wait
    from sidecar.errors import ConfigError
    from sidecar.settings import forwarding, load

    seconds = seconds_of(arguments.lasting)
    if seconds is None:
        print("sidecar: --for is a duration, such as 30s", file=sys.stderr)
        return 2
    try:
        rules = load(arguments.config, environ=os.environ, overrides={}, strict=False)
    except ConfigError:
        rules = forwarding(environ=os.environ, overrides={})  # by which a sidecar that is injected runs then
    why = wait(rules, seconds)
    if why:
        print(f"sidecar: {why}", file=sys.stderr)
    if not arguments.run:
        return 1 if why else 0
    try:
        os.execvp(arguments.run[0], arguments.run)  # noqa: S606  it is what the caller asked to run
    except OSError as error:
        print(f"sidecar: {arguments.run[0]}: {error.strerror}", file=sys.stderr)
        return 127


def _webhook(arguments: argparse.Namespace) -> int:
    from sidecar.cli.webhook import WebhookOptions, webhook
    from sidecar.inject.api_server import ACCOUNT

    durations = {}
    for name in ("certificate_life", "drain"):
        seconds = seconds_of(getattr(arguments, name))
        if seconds is None or (name == "certificate_life" and seconds < LEAST_LIFE_SECONDS):
            option = name.replace("_", "-")
            print(f"sidecar: --{option} is a duration, such as {_EXAMPLES[name]}", file=sys.stderr)
            return 2
        durations[name] = seconds
    options = WebhookOptions(
        image=arguments.image,
        version=arguments.cluster_version,
        architectures=arguments.architectures,
        host=arguments.host,
        port=arguments.port,
        health_port=arguments.health_port,
        cert_file=arguments.tls_cert,
        key_file=arguments.tls_key,
        hostnames=tuple(arguments.hostname),
        name=arguments.name,
        revision=arguments.revision,
        sync=arguments.sync,
        account=arguments.service_account or ACCOUNT,
        **durations,
    )
    return webhook(arguments.config, options, environ=os.environ)


def _changed(text: str, notes: list[str]) -> int:
    """Print manifests, and to people what became of each."""
    print(text, end="")
    for note in notes:
        print(f"sidecar: {note}", file=sys.stderr)
    return 0
