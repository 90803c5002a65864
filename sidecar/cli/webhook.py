"""
``sidecar webhook``: the admission server, from its start to its exit code.

The rule: signals, the loop and the log are handled here. The configuration is read again when it changes, and a wrong
one changes nothing: the webhook goes on injecting by the last good one, at its start by the built-in one. In a pod it
asks its cluster for what it was not told; outside of one it needs to be told all.
"""

from __future__ import annotations

import asyncio
import signal
import ssl
import sys
import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from sidecar.app.clocks import CLOCKS
from sidecar.cli.inject import injection
from sidecar.core.events import TellEvent
from sidecar.core.pods.settings import Injection
from sidecar.core.rules import Rules
from sidecar.errors import ConfigError
from sidecar.inject.api_server import ACCOUNT, ApiServer, ApiServerError, address_of
from sidecar.inject.facts import Version, met, nodes, own_image, served_version
from sidecar.inject.metrics import AdmissionMetrics
from sidecar.inject.missed import missed_pods, namespaces
from sidecar.inject.own_certificate import OwnCertificate
from sidecar.inject.periodic import repeat
from sidecar.inject.sync import sync
from sidecar.inject.webhook import Certificate, Webhook
from sidecar.settings import load
from sidecar.settings.watch import FileWatch
from sidecar.sinks.log import AccessLog, Pipe
from sidecar.sinks.strays import trail

LOOK_SECONDS = 2.0
"""How often certificate files and the configuration are looked at."""

SECRET_SECONDS = 5.0
"""How often the Secret with the webhook's own certificate is looked at."""

NODES_SECONDS = 300.0
MISSED_SECONDS = 30.0
SYNC_SECONDS = 15.0
RETRY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class WebhookOptions:
    """
    What the command line says; *image* and *version* ``""`` ask the cluster, *architectures* ``""`` are those of ours.
    Without *cert_file* and *key_file* the webhook makes its own certificate, for its Service, the further *hostnames*,
    and *certificate_life*. *drain* is for how long it goes on answering after SIGTERM. Both in seconds.
    """

    image: str = ""
    version: str = ""
    architectures: str = ""
    host: str = "0.0.0.0"  # noqa: S104  the API server calls it
    port: int = 8443
    health_port: int = 8081
    cert_file: str = ""
    key_file: str = ""
    certificate_life: float = 90 * 86400.0
    hostnames: tuple[str, ...] = ()
    name: str = "ai-sidecar-webhook"
    revision: str = ""
    sync: bool = False
    account: str = ACCOUNT
    drain: float = 5.0


class WebhookSettings:
    """
    The settings of injections: by the configuration at *config*, read again when it changes, by the *options*, and by
    what the cluster says. *problems* are those of a configuration that was wrong at the start: then the built-in
    services hold, because pods are better injected by those than not at all. Raises ``ConfigError`` for wrong options.
    """

    def __init__(self, config: str | None, options: WebhookOptions, *, environ: Mapping[str, str]) -> None:
        self._config = config
        self._options = options
        self._environ = environ
        self._watch = FileWatch(config)
        self._seen = self._watch.first
        self.problems: tuple[str, ...] = ()
        try:
            self._said = self._read()
        except ConfigError as error:
            self.problems = error.problems
            self._said = self._settings_of(load(None, environ={}, overrides={}, strict=False))
        self.image = options.image
        self.version = None if not options.version else self._said.version
        self.namespace = self._said.namespace
        self.node_architectures: frozenset[str] = frozenset()
        self.present = self._joined()

    def __repr__(self) -> str:
        return f"<WebhookSettings of {self._config or 'the built-in settings'}>"

    @property
    def lacking(self) -> str:
        """What is not known yet; ``""`` for nothing."""
        if not self.image:
            return "the image of this pod is not known yet"
        return "" if self.version else "the version of the cluster is not known yet"

    def refresh(self) -> bool:
        """Read again if it has changed; whether it had. Raises ``ConfigError``: then the former settings stay."""
        seen, _ = self._watch.look()
        if seen == self._seen:
            return False
        self._seen = seen
        self._said = self._read()
        self.present = self._joined()
        return True

    def learn(
        self,
        *,
        image: str = "",
        version: Version | None = None,
        namespace: str = "",
        architectures: frozenset[str] = frozenset(),
    ) -> bool:
        """Take what the cluster says; whether it is new."""
        before = self.present
        self.image, self.version = image or self.image, version or self.version
        self.namespace = namespace or self.namespace
        self.node_architectures = architectures or self.node_architectures
        self.present = self._joined()
        return before != self.present

    def _joined(self) -> Injection:
        return replace(
            self._said,
            image=self.image,
            version=self.version or self._said.version,
            namespace=self.namespace,
            node_architectures=self.node_architectures,
            revision=self._options.revision,
        )

    def _read(self) -> Injection:
        return self._settings_of(load(self._config, environ=self._environ, overrides={}, strict=False))

    def _settings_of(self, rules: Rules) -> Injection:
        options = self._options
        return injection(rules, image=options.image, version=options.version, architectures=options.architectures)


def check_text(text: str, name: str) -> None:
    """What ``sidecar check`` says of the configuration *text*. Raises ``ConfigError``, with places in *name*."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "sidecar.yaml"
        file.write_text(text, encoding="utf-8")
        try:
            load(str(file), environ={}, overrides={}, strict=True)
        except ConfigError as error:
            raise ConfigError(tuple(problem.replace(str(file), name) for problem in error.problems)) from None


def webhook(config: str | None, options: WebhookOptions, *, environ: Mapping[str, str]) -> int:
    """Run until SIGTERM or SIGINT; returns the exit code. Raises ``ConfigError``."""
    settings = WebhookSettings(config, options, environ=environ)
    certificate = _certificate(options)
    address = address_of(environ)
    api = ApiServer(address, options.account) if address else None
    pod = environ.get("POD_NAME", "")
    missing = [
        text
        for is_missing, text in (
            (
                not options.image and (api is None or not pod),
                "--image: say which; in a pod, POD_NAME lets it find its own",
            ),
            (certificate is None and api is None, "--tls-cert, --tls-key: say which; in a pod it makes its own"),
            (options.sync and api is None, "--sync: there is no cluster here; KUBERNETES_SERVICE_HOST is not set"),
        )
        if is_missing
    ]
    if missing:
        raise ConfigError(tuple(missing))
    log = AccessLog(Pipe(sys.stderr.fileno()), now=CLOCKS.wall)
    if api is None:
        settings.learn(version=settings.present.version)
    else:
        settings.learn(namespace=api.namespace)
    return asyncio.run(_Serving(settings, options, certificate, api, pod, log).run())


def _certificate(options: WebhookOptions) -> Certificate | None:
    if not options.cert_file and not options.key_file:
        return None
    if not (options.cert_file and options.key_file):
        raise ConfigError(("--tls-cert, --tls-key: name both, or none",))
    try:
        return Certificate(options.cert_file, options.key_file)
    except (OSError, ssl.SSLError) as error:
        why = "no pair" if isinstance(error, ssl.SSLError) else error.strerror
        raise ConfigError((f"{options.cert_file}, {options.key_file}: cannot be used: {why}",)) from None


class _Serving:
    """The parts of one run."""

    def __init__(
        self,
        settings: WebhookSettings,
        options: WebhookOptions,
        certificate: Certificate | None,
        api: ApiServer | None,
        pod: str,
        log: AccessLog,
    ) -> None:
        self._settings = settings
        self._options = options
        self._certificate = certificate
        self._api = api
        self._pod = pod
        self._log = log
        self._tell: TellEvent = log.event
        self._metrics = AdmissionMetrics()
        self._own: OwnCertificate | None = None
        self._without_secret = ""

    async def run(self) -> int:
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        async with AsyncExitStack() as stack:
            if self._api is not None:
                await stack.enter_async_context(self._api)
                if self._certificate is None:
                    self._own = self._own_certificate(self._api)
            server = Webhook(
                lambda: self._settings.present,
                check_text,
                self._report,
                metrics=self._metrics,
                lacking=self._lacking,
                tell=self._tell,
            )
            tls = self._certificate or self._own
            assert tls is not None, "without a cluster there are files"
            options = self._options
            try:
                bound, health = await server.start(options.host, options.port, options.health_port, tls=tls.context)
            except OSError as error:
                self._tell("not-started", level="error", message=error.strerror or str(error), port=options.port)
                return 1
            self._metrics.config_read(is_good=not self._settings.problems)
            for problem in self._settings.problems:
                self._tell("config-problem", level="error", message=problem)
            self._tell("started", port=bound, health_port=health, image=self._settings.image or None)
            await self._work(stopping)
            server.drain()
            await asyncio.sleep(options.drain)
            await server.stop()
        self._tell("stopped")
        return 0

    def _own_certificate(self, api: ApiServer) -> OwnCertificate:
        service = f"{self._options.name}.{api.namespace}"
        names = (f"{service}.svc", f"{service}.svc.cluster.local", service, *self._options.hostnames)
        life = timedelta(seconds=self._options.certificate_life)
        return OwnCertificate(api, self._options.name, names, life=life, now=CLOCKS.wall, clock=CLOCKS.running)

    async def _work(self, stopping: asyncio.Event) -> None:
        """Look at everything again and again until *stopping* is set."""
        parts = {"files": self._look_at_files}
        if self._api is not None:
            parts |= {"nodes": self._look_at_nodes, "missed": self._look_at_pods}
            if self._options.sync:
                parts["sync"] = self._sync
        if self._own is not None:
            parts["certificate"] = self._look_at_certificate
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(
                    repeat(
                        part,
                        do,
                        retry=RETRY_SECONDS,
                        count=self._metrics.cluster_failed,
                        tell=self._tell,
                        report=self._report,
                    )
                )
                for part, do in parts.items()
            ]
            await stopping.wait()
            for task in running:
                task.cancel()

    def _lacking(self) -> str:
        if self._own is not None and not self._own.is_served:
            return "there is no certificate yet"
        return self._settings.lacking

    def _report(self, error: BaseException) -> None:
        if not isinstance(error, ssl.SSLError | ConnectionError):
            self._tell("bug", level="error", error=type(error).__name__, trail=trail(error))

    async def _look_at_files(self) -> float:
        try:
            if self._settings.refresh():
                self._metrics.config_read(is_good=True)
                self._tell("config-reloaded")
        except ConfigError as error:
            self._metrics.config_read(is_good=False)
            for problem in error.problems:
                self._tell("config-problem", level="error", message=problem)
        try:
            if self._certificate is not None:
                if self._certificate.refresh():
                    self._tell("certificate-reloaded")
                self._metrics.certificate_ends(self._certificate.expiry)
        except (OSError, ssl.SSLError) as error:
            self._tell("certificate-unusable", level="error", message=getattr(error, "strerror", None) or "no pair")
        return LOOK_SECONDS

    async def _look_at_certificate(self) -> float:
        assert self._own is not None, "it is looked at only where there is one"
        if await self._own.look():
            self._tell("certificate-reloaded")
        self._metrics.certificate_ends(self._own.expiry)
        return min(SECRET_SECONDS, self._options.certificate_life / 60)

    async def _look_at_nodes(self) -> float:
        assert self._api is not None, "it is asked only where there is one"
        if not self._settings.image:
            image = await own_image(self._api, self._pod, self._options.name)
            self._settings.learn(image=image)
            if not image:
                return 1.0
            self._tell("image-known", image=image)
        served = await served_version(self._api)
        try:
            found = await nodes(self._api)
        except ApiServerError:
            if self._settings.version is None:  # without the nodes, the API server's own version must do
                self._settings.learn(version=served)
            raise
        version = met(served, found)
        wanted = None if self._options.version else version
        if self._settings.learn(version=wanted, architectures=found.architectures):
            architectures = " ".join(sorted(found.architectures))
            self._tell("cluster-known", version=".".join(map(str, version or ())), architectures=architectures)
        return NODES_SECONDS

    async def _look_at_pods(self) -> float:
        assert self._api is not None, "it is asked only where there is one"
        said = await namespaces(self._api)
        self._metrics.missed(await missed_pods(self._api, said))
        return MISSED_SECONDS

    async def _sync(self) -> float:
        assert self._api is not None, "it is asked only where there is one"
        said = await namespaces(self._api)
        done = await sync(self._api, [name for name, label in said.items() if label == "enabled"])
        self._metrics.without_secret(len(done.without_secret))
        if done.written:
            self._tell("config-copied", namespaces=done.written)
        for text in done.failed:
            self._metrics.cluster_failed("sync")
            self._tell("cluster-error", level="warning", part="sync", message=text)
        listed = " ".join(done.without_secret)
        if listed != self._without_secret:
            self._without_secret = listed
            self._tell("namespaces-without-secret", count=len(done.without_secret), namespaces=listed)
        return SYNC_SECONDS
