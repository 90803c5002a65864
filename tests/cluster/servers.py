"""
A real API server of Kubernetes, over an etcd of its own, on the loopback.

The binaries are those that ``make api-server`` has built, in a cache outside of the checkout. Where they are missing,
the tests that need them are skipped with the reason, but fail where ``REQUIRE_API_SERVER=1``. There is no controller
and no kubelet: what a controller would create, a story creates, and no pod ever runs. All dies with the test process.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import secrets
import shutil
import ssl
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.redis_servers import die_with_parent, eventually, free_port, write_certificates

NAMESPACE = "ai-sidecar"
ACCOUNTS = ("ai-sidecar-webhook", "ai-sidecar-webhook-canary")
"""The service accounts that the roles of the manifests are bound to."""

PATIENCE = 120.0
"""Seconds that a server may take to start, on a machine that does much else."""


def is_required() -> bool:
    """Whether a test fails, rather than being skipped, where something that it runs is missing."""
    return os.environ.get("REQUIRE_API_SERVER") == "1"


def missing(reason: str) -> NoReturn:
    """Skip, or fail, because of *reason*."""
    if is_required():
        pytest.fail(reason)
    pytest.skip(reason)


@cache
def binaries() -> tuple[str, str]:
    """The paths of ``kube-apiserver`` and ``etcd``."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(os.environ.get("API_SERVER_CACHE") or Path(base, "ai-sidecar", "kube-apiserver")).expanduser()
    found = [shutil.which(name, path=str(folder)) for name in ("kube-apiserver", "etcd")]
    if None in found:
        missing(f"no kube-apiserver in {folder}: `make api-server` builds it")
    return str(found[0]), str(found[1])


def program(name: str, hint: str) -> str:
    """The path of the program *name*; *hint* says where to have it from."""
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        missing(f"no {name} on PATH: {hint}")
    return found


class RealApiServer:
    """One API server, running inside ``with``. RBAC holds for all but its administrator, who has ``token``."""

    def __init__(self) -> None:
        self.port = free_port()
        self.token, *tokens = (secrets.token_hex(16) for _ in range(3))
        self._account_tokens = dict(zip(ACCOUNTS, tokens, strict=True))
        # Services get addresses of the loopback, each server others, so that a test can listen on them.
        self.services = f"127.{random.SystemRandom().randrange(64, 128)}.{random.SystemRandom().randrange(256)}"
        self._folder = Path()
        self._etcd = ""
        self._processes: list[tuple[subprocess.Popen[bytes], Path]] = []
        self._stack = ExitStack()

    def __repr__(self) -> str:
        return f"<RealApiServer {self.url}>"

    def __enter__(self) -> Self:
        server, etcd = binaries()
        with ExitStack() as stack:
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="api-server-")))
            write_certificates(self._folder)
            stack.enter_context(self._running("etcd", [etcd, *self._etcd_options()]))
            stack.enter_context(self._running("kube-apiserver", [server, *self._options()]))
            eventually(self._is_ready, f"{self!r} is ready", patience=PATIENCE)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def trust(self) -> ssl.SSLContext:
        """What a client trusts."""
        return ssl.create_default_context(cafile=str(self._folder / "ca.pem"))

    @property
    def asked(self) -> list[dict[str, Any]]:
        """What the service accounts have asked for up to now, as the server's audit tells it."""
        log = self._folder / "audit.log"
        lines = log.read_bytes().splitlines(keepends=True) if log.exists() else []
        return [json.loads(line) for line in lines if line.endswith(b"\n")]

    @property
    def failed_calls(self) -> list[str]:
        """What the server's log tells of webhooks that it could not call."""
        lines = (self._folder / "kube-apiserver.log").read_text().splitlines()
        return [line for line in lines if "ailed calling webhook" in line]

    def account(self, name: str, folder: Path) -> Path:
        """*folder* as kubelet mounts the service account *name*."""
        folder.mkdir()
        (folder / "token").write_text(self._account_tokens[name])
        (folder / "namespace").write_text(NAMESPACE)
        shutil.copy(self._folder / "ca.pem", folder / "ca.crt")
        return folder

    def scraped(self) -> dict[str, Any]:
        """How Prometheus reads the server's metrics."""
        return {
            "job_name": "apiserver",
            "scheme": "https",
            "tls_config": {"ca_file": str(self._folder / "ca.pem")},
            "authorization": {"credentials": self.token},
            "static_configs": [{"targets": [f"127.0.0.1:{self.port}"]}],
        }

    async def kubectl(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """What kubectl says, called by the administrator. Meanwhile the loop runs, and with it a Service."""
        access = ["--server", self.url, "--certificate-authority", str(self._folder / "ca.pem"), "--token", self.token]
        return await asyncio.to_thread(
            subprocess.run,
            [program("kubectl", "`make setup` installs it"), *access, "--cache-dir", str(self._folder), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            env={"HOME": str(self._folder), "KUBECONFIG": os.devnull},
        )

    def _etcd_options(self) -> list[str]:
        clients, peers = f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}"
        self._etcd = clients
        return [
            f"--data-dir={self._folder / 'etcd'}",
            f"--listen-client-urls={clients}",
            f"--advertise-client-urls={clients}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
        ]

    def _options(self) -> list[str]:
        groups = f'"system:serviceaccounts,system:serviceaccounts:{NAMESPACE}"'
        users = {name: f"system:serviceaccount:{NAMESPACE}:{name}" for name in ACCOUNTS}
        lines = [f"{self.token},admin,admin,system:masters"]
        lines += [f"{token},{users[name]},{name},{groups}" for name, token in self._account_tokens.items()]
        tokens = self._folder / "tokens.csv"
        tokens.write_text("".join(f"{line}\n" for line in lines))
        policy = self._folder / "audit.json"
        rule = {"level": "Metadata", "users": list(users.values()), "omitStages": ["RequestReceived"]}
        policy.write_text(json.dumps({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [rule]}))
        key = self._folder / "service-accounts.pem"
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL)
        key.write_bytes(ec.generate_private_key(ec.SECP256R1()).private_bytes(*form, serialization.NoEncryption()))
        return [
            f"--audit-policy-file={policy}",
            f"--audit-log-path={self._folder / 'audit.log'}",
            f"--etcd-servers={self._etcd}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self.port}",
            f"--tls-cert-file={self._folder / 'cert.pem'}",
            f"--tls-private-key-file={self._folder / 'key.pem'}",
            f"--token-auth-file={tokens}",
            "--authorization-mode=RBAC",
            "--anonymous-auth=false",
            f"--service-cluster-ip-range={self.services}.0/24",
            "--service-account-issuer=https://api.example",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--endpoint-reconciler-type=none",
            "--external-hostname=localhost",
            "--disable-admission-plugins=ServiceAccount",
            "--allow-privileged=true",
        ]

    @contextmanager
    def _running(self, name: str, command: Sequence[str]) -> Iterator[None]:
        """*command* runs, with a log of its own, and no proxy of this machine."""
        log = self._folder / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=self._folder,
                env={"HOME": str(self._folder)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - before any thread of the tests' own
            )
        self._processes.append((process, log))
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _is_ready(self) -> bool:
        for process, log in self._processes:
            if process.poll() is not None:
                pytest.fail(f"{log.stem} ended at once:\n{log.read_text()[-2000:]}")
        request = urllib.request.Request(f"{self.url}/readyz", headers={"Authorization": f"Bearer {self.token}"})
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=self.trust)
        )
        try:
            with opener.open(request, timeout=5) as answer:
                return bool(answer.read() == b"ok")
        except OSError:
            return False
