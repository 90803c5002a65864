"""
``sidecar webhook``: the admission server, from its start to its exit code.

The rule: signals, the loop and the log are handled here. The configuration is read again when it changes, and a wrong
one changes nothing: the webhook goes on injecting by the last good one.
"""

from __future__ import annotations

import asyncio
import signal
import ssl
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from sidecar.app.clocks import CLOCKS
from sidecar.cli.inject import injection
from sidecar.core.pods.settings import Injection
from sidecar.errors import ConfigError
from sidecar.inject.webhook import Certificate, Webhook
from sidecar.settings import load
from sidecar.settings.watch import FileWatch
from sidecar.sinks.log import AccessLog, Pipe
from sidecar.sinks.strays import trail

LOOK_SECONDS = 2.0
"""How often certificate and configuration are looked at."""


class WebhookSettings:
    """The settings of injections by the configuration at *config*, read again when it changes."""

    def __init__(self, config: str | None, *, image: str, version: str, environ: Mapping[str, str]) -> None:
        self._config = config
        self._image = image
        self._version = version
        self._environ = environ
        self._watch = FileWatch(config)
        self._seen = self._watch.first
        self.present = self._read()

    def __repr__(self) -> str:
        return f"<WebhookSettings of {self._config or 'the built-in settings'}>"

    def refresh(self) -> bool:
        """Read again if it has changed; whether it had. Raises ``ConfigError``: then the former settings stay."""
        seen, _ = self._watch.look()
        if seen == self._seen:
            return False
        self._seen = seen
        self.present = self._read()
        return True

    def _read(self) -> Injection:
        rules = load(self._config, environ=self._environ, overrides={}, strict=False)
        return injection(rules, image=self._image, version=self._version)


def check_text(text: str, name: str) -> None:
    """What ``sidecar check`` says of the configuration *text*. Raises ``ConfigError``, with places in *name*."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "sidecar.yaml"
        file.write_text(text, encoding="utf-8")
        try:
            load(str(file), environ={}, overrides={}, strict=True)
        except ConfigError as error:
            raise ConfigError(tuple(problem.replace(str(file), name) for problem in error.problems)) from None


def webhook(settings: WebhookSettings, *, host: str, port: int, health_port: int, cert_file: str, key_file: str) -> int:
    """Run until SIGTERM or SIGINT; returns the exit code. Raises ``ConfigError``."""
    log = AccessLog(Pipe(sys.stderr.fileno()), now=CLOCKS.wall)
    try:
        certificate = Certificate(cert_file, key_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError((f"{cert_file}, {key_file}: cannot be used: {error.strerror or 'no pair'}",)) from None
    return asyncio.run(_serve(settings, certificate, log, host, port, health_port))


async def _serve(
    settings: WebhookSettings, certificate: Certificate, log: AccessLog, host: str, port: int, health_port: int
) -> int:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)

    def report(error: BaseException) -> None:
        if not isinstance(error, ssl.SSLError | ConnectionError):
            log.event("bug", level="error", error=type(error).__name__, trail=trail(error))

    server = Webhook(lambda: settings.present, check_text, report)
    try:
        bound, health = await server.start(host, port, health_port, tls=certificate.context)
    except OSError as error:
        log.event("not-started", level="error", message=error.strerror or str(error), port=port)
        return 1
    log.event("started", port=bound, health_port=health, image=settings.present.image)
    while not stopping.is_set():
        _refresh(settings, certificate, log)
        try:
            await asyncio.wait_for(stopping.wait(), LOOK_SECONDS)
        except TimeoutError:
            continue
    await server.stop()
    log.event("stopped")
    return 0


def _refresh(settings: WebhookSettings, certificate: Certificate, log: AccessLog) -> None:
    try:
        if settings.refresh():
            log.event("config-reloaded")
    except ConfigError as error:
        for problem in error.problems:
            log.event("config-problem", level="error", message=problem)
    try:
        if certificate.refresh():
            log.event("certificate-reloaded")
    except (OSError, ssl.SSLError) as error:
        log.event("certificate-unusable", level="error", message=getattr(error, "strerror", None) or "no pair")
