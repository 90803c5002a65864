"""The webhook's own certificate: two replicas, one Secret, and API servers that trust it before it is served."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sidecar.inject.api_server import ApiServer, ApiServerError
from sidecar.inject.certificates import LIFE, SKEW, bundle, issue
from sidecar.inject.own_certificate import KINDS, SETTLE_SECONDS, OwnCertificate
from tests.inject.small_api_server import SmallApiServer

NAMES = ("ai-sidecar-webhook.ai-sidecar.svc",)
SECRET = "/api/v1/namespaces/ai-sidecar/secrets/ai-sidecar-webhook-tls"
CONFIGURATIONS = [f"/apis/admissionregistration.k8s.io/v1/{kind}/ai-sidecar-webhook" for kind in KINDS]
START = datetime(2026, 11, 30, tzinfo=UTC).timestamp()
DAY = 86400.0


class Passing:
    """A clock that the story moves."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def wall(self) -> float:
        return START + self.seconds

    def running(self) -> float:
        return self.seconds


def replica(api: ApiServer, clock: Passing) -> OwnCertificate:
    return OwnCertificate(api, "ai-sidecar-webhook", NAMES, life=LIFE, now=clock.wall, clock=clock.running)


def configure(server: SmallApiServer) -> None:
    for path in CONFIGURATIONS:
        hooks = [{"name": "a", "clientConfig": {"service": {"name": "s"}}}, {"name": "b", "clientConfig": {}}]
        server.put(path, {"webhooks": hooks})


def trusted(server: SmallApiServer) -> set[bytes]:
    """The bundles that the configurations hold; one if they agree."""
    hooks = [hook for path in CONFIGURATIONS for hook in server.objects[path]["webhooks"]]
    return {base64.b64decode(hook["clientConfig"].get("caBundle", "")) for hook in hooks}


async def test_the_first_one(small_api):
    """One replica makes it, all configurations trust it, the other replica serves the same."""
    server, api = small_api
    configure(server)
    one, two = (replica(api, Passing()) for _ in range(2))

    assert (False, 0.0) == (one.is_served, one.expiry)
    assert (True, True) == (await one.look(), await two.look())
    assert {server.data(SECRET, "ca.crt")} == trusted(server)
    assert START + LIFE.total_seconds() == one.expiry == two.expiry
    assert (False, False) == (await one.look(), await two.look())


async def test_nothing_is_written_in_vain(small_api):
    """A look at what is as it should be only reads."""
    server, api = small_api
    configure(server)
    own = replica(api, Passing())
    await own.look()
    server.asked.clear()
    await own.look()

    assert {"GET"} == {asked.split()[0] for asked in server.asked}


async def test_a_rotation(small_api):
    """Its authority is trusted first, then time passes, then it is served; the old authority stays trusted."""
    server, api = small_api
    configure(server)
    clock = Passing()
    one, two = replica(api, clock), replica(api, clock)
    await one.look()
    await two.look()
    old = server.data(SECRET, "ca.crt")
    clock.seconds = 61 * DAY

    assert (False, False) == (await one.look(), await two.look())

    new = server.data(SECRET, "next-ca.crt")

    assert {old + new} == trusted(server)
    assert old == server.data(SECRET, "ca.crt")

    clock.seconds += SETTLE_SECONDS - 1

    assert (False, False) == (await one.look(), await two.look())

    clock.seconds += 1

    assert (True, True) == (await one.look(), await two.look())
    assert {new + old} == trusted(server)
    assert new == server.data(SECRET, "ca.crt")
    assert "next-ca.crt" not in server.objects[SECRET]["data"]
    assert one.expiry == two.expiry == START + 61 * DAY + LIFE.total_seconds()


async def test_a_replica_that_starts_amid(small_api):
    """It serves the pair whose authority is known for long, and begins to wait by itself."""
    server, api = small_api
    configure(server)
    clock = Passing()
    one = replica(api, clock)
    await one.look()
    clock.seconds = 61 * DAY
    await one.look()
    late = replica(api, clock)

    assert await late.look()
    assert one.expiry == late.expiry == START + LIFE.total_seconds()


async def test_authorities_end(small_api):
    """After its end an old authority is trusted no more."""
    server, api = small_api
    configure(server)
    clock = Passing()
    own = replica(api, clock)
    for day in range(0, 200, 1):
        clock.seconds = day * DAY
        await own.look()
        for path in CONFIGURATIONS:
            held = server.objects[path]["webhooks"][0]["clientConfig"]["caBundle"]

            assert 1 <= base64.b64decode(held).count(b"BEGIN CERTIFICATE") <= 3
        assert own.expiry > clock.wall()

    assert own.expiry > START + 200 * DAY


async def test_two_make_it_at_once(small_api):
    """The second one is refused, and serves the first one's at its next look."""
    server, api = small_api
    configure(server)
    one, two = (replica(api, Passing()) for _ in range(2))

    def meanwhile(path: str) -> None:
        server.before_write = lambda _: None
        other = issue(NAMES, datetime.fromtimestamp(START, UTC))
        data = {"tls.crt": other.certificate, "tls.key": other.key, "ca.crt": other.authority}
        server.put(path, {"data": {name: base64.b64encode(text).decode() for name, text in data.items()}})

    server.before_write = meanwhile
    with pytest.raises(ApiServerError) as error:
        await one.look()

    assert 409 == error.value.status
    assert (True, True) == (await one.look(), await two.look())
    assert {server.data(SECRET, "ca.crt")} == trusted(server)


async def test_two_tell_at_once(small_api):
    """A configuration that somebody has changed meanwhile is read anew, as after any conflict."""
    server, api = small_api
    configure(server)
    own = replica(api, Passing())

    def meanwhile(path: str) -> None:
        if path in CONFIGURATIONS:
            server.before_write = lambda _: None
            server.put(path, {"webhooks": [{"name": "z", "clientConfig": {}}, *server.objects[path]["webhooks"]]})

    server.before_write = meanwhile
    with pytest.raises(ApiServerError) as error:
        await own.look()

    assert 409 == error.value.status
    assert await own.look()
    assert {server.data(SECRET, "ca.crt")} == trusted(server)


async def test_the_secret_is_deleted(small_api):
    """What is served comes back into it, so nothing changes."""
    server, api = small_api
    configure(server)
    own = replica(api, Passing())
    await own.look()
    was = server.data(SECRET, "tls.crt")
    del server.objects[SECRET]

    assert not await own.look()
    assert was == server.data(SECRET, "tls.crt")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data.clear(),
        lambda data: data.update({"tls.key": base64.b64encode(b"no key").decode()}),
        lambda data: data.update({"tls.crt": "not base64"}),
        lambda data: data.update({"ca.crt": base64.b64encode(issue(NAMES, datetime.now(UTC)).authority).decode()}),
        lambda data: data.update({"tls.key": base64.b64encode(issue(NAMES, datetime.now(UTC)).key).decode()}),
    ],
    ids=["empty", "key", "certificate", "authority", "other-key"],
)
async def test_a_secret_that_was_spoilt(small_api, spoil: Any):
    """It is replaced at once by a pair that works."""
    server, api = small_api
    configure(server)
    await replica(api, Passing()).look()
    spoil(server.objects[SECRET]["data"])
    own = replica(api, Passing())

    assert await own.look()
    assert server.data(SECRET, "ca.crt") in next(iter(trusted(server)))


async def test_no_configuration_yet(small_api):
    """The certificate is served all the same. A configuration trusts it when it appears, and again if it was reset."""
    server, api = small_api
    own = replica(api, Passing())

    assert await own.look()

    for _ in range(2):
        configure(server)
        await own.look()

        assert {server.data(SECRET, "ca.crt")} == trusted(server)


async def test_an_api_server_that_refuses(small_api):
    """A look that cannot tell the configurations changes nothing that is served."""
    server, api = small_api
    configure(server)
    clock = Passing()
    own = replica(api, clock)
    await own.look()
    clock.seconds = 61 * DAY
    server.refused[CONFIGURATIONS[1]] = 403
    ends = own.expiry
    for _ in range(3):
        clock.seconds += SETTLE_SECONDS
        with pytest.raises(ApiServerError):
            await own.look()

    assert ends == own.expiry

    server.refused.clear()
    await own.look()
    clock.seconds += SETTLE_SECONDS

    assert await own.look()


async def test_what_others_wrote_on_the_secret(small_api):
    """Its labels, annotations and type stay."""
    server, api = small_api
    configure(server)
    server.put(SECRET, {"metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}}, "type": "Opaque"})
    await replica(api, Passing()).look()
    found = server.objects[SECRET]

    assert ({"a": "b"}, {"c": "d"}, "Opaque") == (
        found["metadata"]["labels"],
        found["metadata"]["annotations"],
        found["type"],
    )


def test_skew():
    """A certificate is valid a little before it was made."""
    now = datetime.fromtimestamp(START, UTC)
    one = issue(NAMES, now, timedelta(minutes=1))

    assert one.authority == bundle([one.authority], now - SKEW / 2)
