"""Files that rules name rotate by content while a fleet and its services are in use: noticed, named, never shown."""

from __future__ import annotations

import asyncio
import json
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from sidecar.cli.keygen import line
from tests.redis_servers import RedisServer, write_certificates
from tests.scenarios.answers import whole
from tests.scenarios.lab import Lab
from tests.scenarios.redis_contents import written
from tests.scenarios.regions import Region, chat
from tests.scenarios.rules_on_disk import events, live, reload, rules

ANCHOR = (Path(__file__).parents[1] / "anchor.pem").read_text()

OLD, NEW = line(), line()


def write(path: Path, *lines: str) -> None:
    """The file at *path* has these lines from now on: the same file, with other content."""
    path.write_text("".join(f"{each}\n" for each in lines))


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """The fleet's secret file."""
    path = tmp_path / "cache.key"
    write(path, OLD)
    return path


def shared(upstream: Region, secret: Path, url: str, more: str = "") -> str:
    """Rules of pods that share the Redis at *url*; *more* are further members of ``cache.redis``."""
    redis = f"redis: {{url: '{url}', namespace: team-a, {more or 'timeout: 10s'}}}"
    return rules(upstream, more=f"cache: {{secret_file: {secret}, {redis}}}\n")


async def ask(lab: Lab, number: int) -> str:
    """Ask question *number*; how it was answered."""
    reply = await lab.ask(chat(number))
    assert 200 == reply.status
    await lab.settle()
    return lab.records[-1].outcome.value


async def named(labs: list[Lab], *files: Path | str) -> None:
    """Wait until the log of each of *labs* says that *files* have other content, and by nothing but the change."""

    def told(lab: Lab) -> set[str]:
        """The files that its log has named."""
        found = [event["changes"] for event in events(lab, "config-reloaded") if event["by"] == "change"]
        return {part.removeprefix("content of ") for text in found for part in text.split("; ")}

    await live(labs[0], lambda: all({str(file) for file in files} <= told(lab) for lab in labs))


async def test_the_fleets_secret(build_lab, disk, upstream: Region, secret: Path, redis_server):
    """
    Two pods over one Redis: a secret is added, put first, and the old one removed. Each step is noticed and named by
    both, no answer that a remaining secret sealed is fetched again, and what the removed one sealed is.
    """
    disk.mount(shared(upstream, secret, redis_server.url))
    one, two = [await build_lab("", on_disk=disk.source()) for _ in range(2)]
    labs = [one, two]

    async def rotate(*lines: str) -> None:
        for lab in labs:
            lab.logs.clear()
        write(secret, *lines)
        await named(labs, secret)
        ids = [each.partition(":")[0] for each in lines]
        await one.until(lambda: all(ids == [key.id for key in lab.sidecar.fleet.seal._keyring().keys] for lab in labs))

        assert not [text for lab in labs for text in lab.logs for each in lines if each[-20:].encode() in text]

    assert "miss" == await ask(one, 1)

    await written(redis_server, 1)
    await rotate(OLD, NEW)

    assert ["miss", "hit_redis"] == [await ask(one, 2), await ask(two, 1)]

    await rotate(NEW, OLD)

    assert "miss" == await ask(one, 3)

    await written(redis_server, 3)

    assert ["hit_redis", "hit_redis"] == [await ask(two, 2), await ask(two, 3)]

    for lab in labs:
        lab.sidecar.memory.clear()
    await rotate(NEW)

    assert (["hit_redis", "miss"], 4) == ([await ask(two, 3), await ask(two, 1)], upstream.calls)


async def test_a_fleets_secret_that_is_no_good(build_lab, disk, upstream: Region, secret: Path, redis_server):
    """It is named as unfit; the last good one goes on sealing and opening, until the file is put right."""
    disk.mount(shared(upstream, secret, redis_server.url))
    one, two = [await build_lab("", on_disk=disk.source()) for _ in range(2)]
    write(secret, "no secret")
    await live(one, lambda: all(b"cache.key" in b"".join(lab.logs) for lab in (one, two)))

    assert "miss" == await ask(one, 1)

    await written(redis_server, 1)

    assert "hit_redis" == await ask(two, 1)
    assert not [text for lab in (one, two) for text in lab.logs if b"no secret" in text]

    for lab in (one, two):
        lab.logs.clear()
    write(secret, OLD)
    await named([one, two], secret)


async def test_the_password_of_redis(build_lab, disk, upstream: Region, secret: Path, tmp_path: Path):
    """Redis takes another password and cuts its connections: the new content opens new ones, and no call fails."""
    password = tmp_path / "password"
    write(password, "word-one")
    with RedisServer() as server:
        server.call("CONFIG", "SET", "requirepass", "word-one")
        server.password = "word-one"
        disk.mount(shared(upstream, secret, server.url, f"timeout: 10s, password_file: {password}"))
        one, two = [await build_lab("", on_disk=disk.source()) for _ in range(2)]
        await ask(one, 1)
        await written(server, 1)
        server.call("CONFIG", "SET", "requirepass", "word-two")
        server.password = "word-two"
        write(password, "word-two")
        await named([one, two], password)
        server.call("CLIENT", "KILL", "TYPE", "normal")
        await ask(one, 2)  # perhaps on a connection that has just been cut
        await two.until(lambda: two.sidecar.fleet.link.up)

        assert "hit_redis" == await ask(two, 1)
        assert not [text for lab in (one, two) for text in lab.logs if b"word-" in text]


class Front:
    """
    Speaks TLS before *server*, which need not have been built with it, by the certificates in *folder*. It asks a
    client for one of the same authority.
    """

    def __init__(self, server: RedisServer, folder: Path) -> None:
        self._server = server
        self._folder = folder
        self._open: set[asyncio.StreamWriter] = set()
        self._listening: asyncio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        """Listen, with the certificates as they are now."""
        trust = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(self._folder / "ca.pem"))
        trust.verify_mode = ssl.CERT_REQUIRED
        trust.load_cert_chain(self._folder / "cert.pem", self._folder / "key.pem")
        self._listening = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=trust)
        self.port = self._listening.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close all."""
        assert self._listening is not None
        self._listening.close()
        for writer in tuple(self._open):
            writer.transport.abort()
        await self._listening.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to, back = await asyncio.open_connection("127.0.0.1", self._server.port)
        self._open |= {writer, back}
        await asyncio.gather(self._relay(reader, back), self._relay(to, writer))

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()
        self._open.discard(writer)


async def test_the_certificates_of_redis(build_lab, disk, upstream: Region, secret: Path, redis_server, tmp_path: Path):
    """Authority, certificate and key are replaced, and Redis comes back with them: it is in use again."""
    write_certificates(tmp_path)
    files = {"ca_file": tmp_path / "ca.pem", "cert_file": tmp_path / "cert.pem", "key_file": tmp_path / "key.pem"}
    members = ", ".join(f"{name}: {path}" for name, path in files.items())
    front = Front(redis_server, tmp_path)
    await front.start()
    try:
        disk.mount(shared(upstream, secret, f"rediss://localhost:{front.port}", f"timeout: 10s, {members}"))
        lab = await build_lab("", on_disk=disk.source())
        await ask(lab, 1)
        await written(redis_server, 1)
        write_certificates(tmp_path)
        await named([lab], *files.values())
        await front.stop()
        await front.start()
        await ask(lab, 2)  # perhaps on a connection that has just been cut
        await lab.until(lambda: lab.sidecar.fleet.link.up)
        lab.sidecar.memory.clear()

        assert "hit_redis" == await ask(lab, 1)
    finally:
        await front.stop()


async def test_the_time_for_redis(build_lab, disk, upstream: Region, secret: Path):
    """Redis stands still. A call that began by the old rules waits on; one that begins by the new ones does not."""
    with RedisServer() as server:
        disk.mount(shared(upstream, secret, server.url, "timeout: 10s"))
        lab = await build_lab("", on_disk=disk.source())
        await ask(lab, 1)
        server.pause()
        early = asyncio.create_task(lab.ask(chat(2)))
        await lab.until(lambda: len(lab.sidecar.flights) == 1)
        disk.mount(shared(upstream, secret, server.url, "timeout: 50ms"))
        await reload(lab)

        assert (200, False) == ((await lab.ask(chat(3))).status, early.done())

        server.resume()

        assert 200 == (await early).status


class Issuer:
    """An identity endpoint that keeps the service account's tokens it was shown; its own tokens end at once."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def token(self, shown: str) -> bytes:
        """The access token that was issued first for *shown*."""
        return f"token-{self.shown.index(shown) + 1}".encode()

    async def __call__(self, _head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        self.shown += parse_qs(body.decode())["client_assertion"]
        answer: dict[str, Any] = {"access_token": f"token-{len(self.shown)}", "expires_in": 0.2, "token_type": "Bearer"}
        writer.write(whole(json.dumps(answer).encode()))


def by_identity(upstream: Region, token: Path) -> str:
    """Rules by which the region has a workload identity, with the service account's token in the file *token*."""
    held = f"{{client_id: client, tenant_id: tenant, token_file: {token}}}"
    place = f"url: '{upstream.url}', credential_domain: microsoft, credential: {{workload_identity: {held}}}"
    return rules(upstream).replace(f"url: '{upstream.url}'", place)


async def test_an_identity_that_is_new(build_lab, script, disk, upstream: Region, tmp_path: Path):
    """Its access token is asked for with the reload, so that the first call does not wait for it."""
    issuer = Issuer()
    endpoint = await script(issuer)
    token = tmp_path / "federated"
    write(token, "aaaa.one.cccc")
    disk.mount(rules(upstream))
    lab = await build_lab("", on_disk=disk.source(), environ={"AZURE_AUTHORITY_HOST": endpoint.url})
    disk.mount(by_identity(upstream, token))
    await reload(lab)
    await lab.until(lambda: bool(issuer.shown))

    assert 0 == upstream.calls


async def test_a_service_accounts_token(build_lab, script, disk, upstream: Region, tmp_path: Path):
    """The file of a workload identity has another token: the next request for an access token shows the new one."""
    issuer = Issuer()
    endpoint = await script(issuer)
    token = tmp_path / "federated"
    write(token, "aaaa.one.cccc")
    disk.mount(by_identity(upstream, token))
    lab = await build_lab("", on_disk=disk.source(), environ={"AZURE_AUTHORITY_HOST": endpoint.url})
    await ask(lab, 1)
    write(token, "aaaa.two.cccc")
    await named([lab], token)
    number = 1
    async with asyncio.timeout(30):
        while not ("aaaa.two.cccc" in issuer.shown and upstream.wrote(issuer.token("aaaa.two.cccc"))):
            number += 1
            await ask(lab, number)

    assert ["aaaa.one.cccc", "aaaa.two.cccc"] == list(dict.fromkeys(issuer.shown))
    assert not [text for text in lab.logs if b"aaaa." in text]


async def test_an_issuers_keys(build_lab, disk, upstream: Region, tmp_path: Path):
    """
    Tokens are verified by the keys that the file holds. While it is unfit the last good ones count, whatever else is
    reloaded; a token of a key that is gone names nobody.
    """
    good, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    keys = tmp_path / "keys.json"

    def publish(key: ec.EllipticCurvePrivateKey) -> None:
        public = json.loads(ECAlgorithm.to_jwk(key.public_key()))
        write(keys, json.dumps({"keys": [{**public, "alg": "ES256"}]}))

    async def asked(number: int) -> str:
        """How a call was answered whose token differs from all others, and names the same principal."""
        claims = {"iss": "https://issuer", "aud": "us", "sub": "app", "exp": 4_000_000_000, "jti": str(number)}
        signed = jwt.encode(claims, good, algorithm="ES256")
        await lab.ask(chat(1), headers={"authorization": f"Bearer {signed}"})
        await lab.settle()
        return lab.records[-1].outcome.value

    def by(ttl: str) -> str:
        verified = f"tokens: {{issuer: 'https://issuer', audience: us, jwks_file: {keys}}}"
        return rules(upstream, service=verified, route=f"cache: {{ttl: {ttl}}}")

    publish(good)
    disk.mount(by("1h"))
    lab = await build_lab("", on_disk=disk.source())

    assert ["miss", "hit_memory"] == [await asked(1), await asked(2)]

    write(keys, "no keys")
    await live(lab, lambda: bool(events(lab, "key-set-unusable")))
    disk.mount(by("2h"))
    await reload(lab)

    assert "hit_memory" == await asked(3)

    lab.logs.clear()
    publish(other)
    await named([lab], keys)

    assert ["miss", "miss"] == [await asked(4), await asked(5)]


async def test_a_rotated_file_disturbs_no_other(build_lab, disk, upstream: Region, tmp_path: Path):
    """A credential rotates beside trust anchors: connections to services go on."""
    key, anchors = tmp_path / "key", tmp_path / "ca.pem"
    write(key, "sk-one")
    write(anchors, ANCHOR)
    held = f"credential: {{header: authorization, file: {key}}}"
    text = rules(upstream, more=f"upstream: {{ca_file: {anchors}}}")
    disk.mount(text.replace(f"url: '{upstream.url}'", f"url: '{upstream.url}', {held}"))
    lab = await build_lab("", on_disk=disk.source())
    pool = lab.sidecar.upstream._pool
    write(key, "sk-two")
    await named([lab], key)

    assert pool is lab.sidecar.upstream._pool
