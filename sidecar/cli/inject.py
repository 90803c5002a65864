"""
``sidecar inject`` and ``sidecar uninject``: what the admission webhook does to a pod, offline.

The rule: manifests go to standard output, and what people should know to standard error.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sidecar.core.pods.settings import ARCHITECTURES, NEWEST, Injection, reachable, version_of
from sidecar.core.rules import AzureIdentity, Rules
from sidecar.errors import ConfigError
from sidecar.inject.files import ManifestText
from sidecar.inject.manifests import Finding, inject_all, read, uninject_all, write

IMAGE = "ai-sidecar:latest"
"""The image that is used where none is named: a tag, for trying out. The webhook names its own, by digest."""

NO_IMAGE = f"--image is not given: {IMAGE} stands in the output, which no cluster can pull; name yours, by digest"

_NOTHING = "no pod and no pod template"


def injection(rules: Rules, *, image: str, version: str, architectures: str = "") -> Injection:
    """
    The settings for a cluster of *version* (``1.29``; ``""`` for the newest known) and an image for *architectures*
    (``amd64,arm64``; ``""`` for those of our own). Raises ``ConfigError``.
    """
    found = NEWEST if not version else version_of(version)
    if found is None:
        raise ConfigError((f"--cluster-version: {version!r} is not a version such as 1.29",))
    if not (rules.listen.port and rules.health.port):
        raise ConfigError(("listen.port, health.port: 0 is any free port; pods need to know which, so name one",))
    credentials = [region.credential for service in rules.services for region in service.regions]
    if rules.redis is not None:
        credentials.append(rules.redis.credential)
    identity = any(isinstance(each, AzureIdentity) and each.kind == "workload" for each in credentials)
    ports = {
        rules.listen.port,
        rules.health.port,
        rules.admin.port,
        *(each.port for each in rules.services if each.port),
    }
    named = frozenset(name.strip() for name in architectures.split(",") if name.strip())
    return Injection(
        image,
        reachable(rules),
        found,
        named or ARCHITECTURES,
        identity=identity,
        health_port=rules.health.port,
        ports=tuple(sorted(ports)),
        drain=rules.limits.drain_seconds,
    )


def inject(manifests: Iterable[ManifestText], settings: Injection) -> tuple[str, list[str]]:
    """The manifests injected, and lines for people. Raises ``ConfigError``."""
    documents, findings = inject_all(_documents(manifests), settings)
    return write(documents), _lines(findings, "injected") or [_NOTHING]


def uninject(manifests: Iterable[ManifestText]) -> tuple[str, list[str]]:
    """The manifests without their injection, and lines for people. Raises ``ConfigError``."""
    documents, findings = uninject_all(_documents(manifests))
    return write(documents), _lines(findings, "taken back", bad="left as it is") or [_NOTHING]


def report(manifests: Iterable[ManifestText], settings: Injection) -> str:
    """
    For each workload: whether its calls will arrive, by which variables of which containers, and what will not. Raises
    ``ConfigError``.
    """
    _, findings = inject_all(_documents(manifests), settings)
    return "\n".join(_lines(findings, "injected", arrivals=True)) or _NOTHING


def _documents(manifests: Iterable[ManifestText]) -> list[Any]:
    found = [document for each in manifests for document in read(each.text, each.source)]
    return [document for document in found if document is not None]  # between two lines of hyphens


def _lines(findings: list[Finding], good: str, *, bad: str = "not injected", arrivals: bool = False) -> list[str]:
    lines = []
    for finding in findings:
        lines.append(f"{finding.workload}: {f'{bad}: {finding.reason}' if finding.reason else good}")
        if arrivals:
            for name, by in finding.arrivals.items():
                lines += [f"  {name}: {variable} = {address}" for variable, address in by.items()]
                if not by:
                    lines.append(f"  {name}: no variable leads here; calls of this container do not arrive")
        lines += [f"  {warning}" for warning in finding.warnings]
    return lines
