"""Tokens change while an operation runs: the next one is the same caller's, or it is a stranger's."""

from __future__ import annotations

import json
import time
from itertools import count

import jwt
import pytest
from azure.core.credentials import AccessToken
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from sidecar.core.rules import TokenRule
from tests.scenarios.conftest import VENDORS
from tests.scenarios.document_desks import DocumentDesks, raw
from tests.scenarios.document_sdks import INTELLIGENCE, SDKS, document
from tests.scenarios.sdk import MANNERS
from tests.scenarios.tokens import FORGED, SUBJECT, bearer, token

ISSUER, AUDIENCE = "https://sts.windows.net/t1/", "https://cognitiveservices.azure.com"
KEY = ec.generate_private_key(ec.SECP256R1())
ONE = document("one")


def signed(subject: str, number: int) -> str:
    """A token of *subject*, whom the issuer has known *number* times before."""
    claims = {"iss": ISSUER, "aud": AUDIENCE, "tid": "t1", "sub": subject, "exp": 4_000_000_000, "jti": str(number)}
    return jwt.encode(claims, KEY, algorithm="ES256")


class Rotating:
    """A credential with a new token for each request."""

    def __init__(self, subject: str) -> None:
        self._subject = subject
        self._numbers = count()

    def get_token(self, *_scopes: str, **_more: object) -> AccessToken:
        return AccessToken(signed(self._subject, next(self._numbers)), int(time.time()))


class RotatingAsync(Rotating):
    """As ``Rotating``, for the async clients."""

    async def get_token(self, *scopes: str, **more: object) -> AccessToken:
        return super().get_token(*scopes, **more)

    async def close(self) -> None:
        pass

    async def __aenter__(self):
        return self

    async def __aexit__(self, *error: object) -> None:
        pass


def credential(subject: str, manner: str) -> Rotating:
    return RotatingAsync(subject) if manner == "async" else Rotating(subject)


@pytest.fixture(params=MANNERS)
def manner(request):
    return request.param


@pytest.fixture
def tokens(tmp_path):
    """The rule by which a sidecar verifies tokens."""
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": [json.loads(ECAlgorithm.to_jwk(KEY.public_key())) | {"alg": "ES256"}]}))
    return TokenRule(issuer=ISSUER, audience=AUDIENCE, jwks_file=str(keys))


@pytest.fixture
async def desk(provider, build_lab, tokens):
    """A sidecar that verifies tokens."""
    provider.documents.faults.running = 0
    return await DocumentDesks(provider, build_lab).open(tokens=tokens)


@pytest.mark.parametrize("sdk", SDKS, ids=repr)
async def test_a_token_a_request(desk, provider, sdk, manner):
    """Whoever has another token at each request is one caller: its polls are answered, its second call is a hit."""
    async with (
        desk.voice(sdk, manner, credential("job", manner)) as voice,
        desk.voice(sdk, manner, credential("other", manner)) as other,
    ):
        results = [await voice.analyse(ONE, enforce_https=False) for _ in range(2)]
        await other.analyse(ONE, enforce_https=False)

    assert results[0] == results[1]
    assert 4 == len({one.sent["Authorization"] for one in voice.heard})
    assert [False, True] == [one.cache.startswith("sidecar; hit") for one in voice.starts]
    assert [False] == [one.cache.startswith("sidecar; hit") for one in other.starts]
    assert 2 == provider.documents.analyses.total()


async def test_polls_of_others(desk, provider):
    """A token of somebody else, and one that nobody signed, find no operation."""
    start = desk.url(INTELLIGENCE) + INTELLIGENCE.start
    _, head, _ = await raw("POST", start, body=ONE, headers=bearer(signed("job", 0)))
    where = head["operation-location"]
    made_up = token(iss=ISSUER, aud=AUDIENCE, tid="t1", sub="job", exp=4_000_000_000)
    statuses = [
        (await raw("GET", where, headers=bearer(value)))[0]
        for value in (signed("other", 0), made_up, signed("job", 1)[:-6] + "AAAAAA", signed("job", 1))
    ]

    assert [404, 404, 404, 200] == statuses
    assert 1 == provider.documents.asked


async def test_accepted_when_it_has_succeeded(provider, build_lab):
    """At the vendor itself a token counts as accepted once its analysis has succeeded, and not for a 202."""
    provider.documents.faults.paused = True
    desk = await DocumentDesks(provider, build_lab, dialects=VENDORS).open()
    start = desk.url(INTELLIGENCE) + INTELLIGENCE.start
    owner, other, forged = (bearer(each) for each in (token(**SUBJECT, jti=1), token(**SUBJECT, jti=2), FORGED))

    async def ask(headers):
        _, head, _ = await raw("POST", start, body=ONE, headers=headers)
        return head["operation-location"], head["cache-status"].startswith("sidecar; hit")

    where, _ = await ask(owner)
    joined = [(await ask(owner))[1], provider.documents.asked]
    refused = [(await ask(other))[1], provider.documents.asked]
    provider.documents.faults.paused = False
    status, *_ = await raw("GET", where, headers=owner)

    assert [False, 1] == joined
    assert [False, 2] == refused
    assert 200 == status
    assert [True, False] == [(await ask(headers))[1] for headers in (owner, forged)]
    assert 3 == provider.documents.asked
