"""The client of the fleet's Redis, as a rule describes it."""

import asyncio
import shutil
import subprocess
import sys

import pytest
from redis.exceptions import AuthenticationError, ConnectionError  # noqa: A004  the client's own

from sidecar.core.rules import RedisRule
from sidecar.redis_link.client import build, build_single
from tests.fleet.lookups import as_it_is
from tests.redis_servers import RedisServer, eventually, free_port


def spawn(work, *, name):
    return asyncio.create_task(work, name=name)


@pytest.fixture
async def clients():
    """Builds clients, and closes them at the end."""
    built = []

    def make(rule, **kwargs):
        built.append(build(rule, spawn, as_it_is, **kwargs))
        return built[-1]

    yield make
    for client in built:
        await client.aclose()


@pytest.fixture
def files(tmp_path):
    """Writes files."""

    def write(name, text):
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


async def test_the_database_is_that_of_the_url(clients, redis_server):
    """Two databases of a server know nothing of each other."""
    url = redis_server.url.removesuffix("0")
    await clients(RedisRule(url + "3")).set(b"key", b"value", px=60_000)

    assert await clients(RedisRule(url + "0")).get(b"key") is None
    assert b"value" == await clients(RedisRule(url + "3")).get(b"key")


async def test_a_connection_says_nothing_of_the_library(clients, redis_server):
    """No CLIENT SETINFO: it costs a round trip, and servers before 7.2 an error."""
    redis_server.call("CONFIG", "RESETSTAT")
    await clients(RedisRule(redis_server.url)).ping()

    assert b"cmdstat_client" not in redis_server.call("INFO", "commandstats")


async def test_tls_with_a_client_certificate_and_an_acl_user(clients, files):
    """All that a careful operator asks for."""
    with RedisServer(tls=True) as server:
        server.call("ACL", "SETUSER", "pod", "on", ">first", "~team:*", "+@all")
        client = clients(
            RedisRule(
                server.url,
                username_file=files("user", "pod\n"),
                password_file=files("password", "first\n"),
                ca_file=server.ca_file,
                cert_file=server.cert_file,
                key_file=server.key_file,
            )
        )

        assert b"pod" == await client.execute_command("ACL", "WHOAMI")


@pytest.mark.parametrize(
    ("lacking", "expected"),
    [
        pytest.param("ca_file", "CERTIFICATE_VERIFY_FAILED", id="stranger"),
        pytest.param("cert_file", ".", id="no certificate of ours"),
        pytest.param("host", "(?i)not valid for '127.0.0.2'", id="another host's certificate"),
    ],
)
async def test_tls_verifies(clients, lacking, expected):
    """Nobody is spoken to who can't prove who they are, and neither are we."""
    with RedisServer(tls=True, options=("--bind", "127.0.0.1", "127.0.0.2")) as server:
        given = {"ca_file": server.ca_file, "cert_file": server.cert_file, "key_file": server.key_file}
        given.pop(lacking, None)
        url = server.url.replace("localhost", "127.0.0.2" if lacking == "host" else "localhost")
        if lacking == "cert_file":
            given.pop("key_file")
        client = clients(RedisRule(url, **given))

        with pytest.raises(ConnectionError, match=expected):
            await client.ping()


async def test_tls_in_a_cluster(clients):
    """Every server is spoken to in the same way."""
    with RedisServer(tls=True, options=("--cluster-enabled", "yes", "--tls-cluster", "yes")) as server:
        server.call("CLUSTER", "ADDSLOTS", *range(16384))
        eventually(lambda: b"cluster_state:ok" in server.call("CLUSTER", "INFO"), "the Cluster is whole")
        client = clients(
            RedisRule(
                f"rediss+cluster://127.0.0.1:{server.port}",
                ca_file=server.ca_file,
                cert_file=server.cert_file,
                key_file=server.key_file,
            )
        )

        assert await client.set(b"key", b"value", px=60_000)


async def test_a_changed_authority_is_trusted(clients, tmp_path):
    """Certificates are rotated while we run."""
    with RedisServer(tls=True, options=("--tls-auth-clients", "no")) as server, RedisServer(tls=True) as other:
        ca_file = tmp_path / "ca.pem"
        shutil.copy(other.ca_file, ca_file)
        client = clients(RedisRule(server.url, ca_file=str(ca_file)))
        with pytest.raises(ConnectionError):
            await client.ping()
        shutil.copy(server.ca_file, tmp_path / "new")
        (tmp_path / "new").rename(ca_file)

        assert await client.ping()


async def test_sentinels_need_not_know_the_password(clients, files):
    """Those they watch have one, they have none; or the other way round, the first command says so."""
    with RedisServer(password="secret") as primary:
        watch = f"sentinel monitor main 127.0.0.1 {primary.port} 1\nsentinel auth-pass main secret\n"
        with (
            RedisServer(sentinel=watch) as open_one,
            RedisServer(sentinel=watch + "requirepass other\n", password="other") as shut,
        ):
            hosts = f"127.0.0.1:{free_port()},127.0.0.1:{open_one.port}"
            password = files("password", "secret")

            assert await clients(RedisRule(f"redis+sentinel://{hosts}/main", password_file=password)).ping()
            with pytest.raises(AuthenticationError):
                await clients(RedisRule(f"redis+sentinel://127.0.0.1:{shut.port}/main", password_file=password)).ping()


async def test_credentials_are_read_for_every_connection(clients, files):
    """A rotated password is used from the next connection on."""
    with RedisServer(password="second") as server:
        path = files("password", "first")
        client = clients(RedisRule(server.url, password_file=path))
        with pytest.raises(AuthenticationError):
            await client.ping()
        files("password", "second\n")

        assert await client.ping()


async def test_a_password_that_cannot_be_read_is_a_refusal(clients, tmp_path, redis_server):
    """The message names the file."""
    client = clients(RedisRule(redis_server.url, password_file=str(tmp_path / "absent")))

    with pytest.raises(AuthenticationError, match="absent: No such file"):
        await client.ping()


@pytest.mark.parametrize("kind", ["redis+sentinel", "redis+cluster", "redis"])
def test_a_single_connection_goes_to_one_host(kind):
    """For subscriptions: in a Cluster any server will do."""
    path = "/main" if kind == "redis+sentinel" else ""
    hosts = "a:1" if kind == "redis" else "a:1,b:2,c:3"
    client = build_single(RedisRule(f"{kind}://{hosts}{path}"), spawn, as_it_is, 0.5)
    options = client.connection_pool.connection_kwargs

    assert 1 == client.connection_pool.max_connections
    assert {"redis+sentinel": None, "redis+cluster": 2, "redis": 1}[kind] == options.get("port")


def test_without_a_client_the_library_is_not_imported():
    """It costs 5 MiB."""
    program = "import sys, sidecar.redis_link.link, sidecar.redis_link.names; sys.exit('redis' in sys.modules)"

    assert 0 == subprocess.run([sys.executable, "-c", program], check=False).returncode
