"""Tokens that are verified here: by their issuer's public keys, and by nothing else."""

import hmac
import json
from base64 import urlsafe_b64encode

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from sidecar.core.rules import TokenRule
from sidecar.identity.caller_tokens import ALGORITHMS, LONGEST, KeySets, parse

RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
OTHER = rsa.generate_private_key(65537, 2048)
CLAIMS = {"iss": "https://issuer", "aud": "us", "sub": "app", "exp": 1_800_000_000, "roles": ["reader"]}


def public(key, **more):
    """The public half of *key*, as a set has it."""
    kinds = {rsa.RSAPrivateKey: RSAAlgorithm, ec.EllipticCurvePrivateKey: ECAlgorithm}
    algorithm = next((found for kind, found in kinds.items() if isinstance(key, kind)), OKPAlgorithm)
    return json.loads(algorithm.to_jwk(key.public_key())) | more


def key_set(*keys):
    return json.dumps({"keys": keys}).encode()


def signed(key=RSA, algorithm="RS256", headers=None, **claims):
    return jwt.encode(CLAIMS | claims, key, algorithm=algorithm, headers=headers).encode()


class Sets:
    """Key sets over a file, with a clock and what was reported."""

    def __init__(self, path, *keys):
        self.path, self.now, self.reports = path, 0.0, []
        self.write(*keys)
        rule = TokenRule(issuer="https://issuer", audience="us", jwks_file=str(path))
        self.sets = KeySets({"s": rule, "other": TokenRule()}, lambda: self.now, self.reports.append)

    def write(self, *keys):
        self.path.write_bytes(key_set(*keys))
        self.now = getattr(self, "now", 0.0) + 10.0


@pytest.fixture
def sets(tmp_path):
    return lambda *keys: Sets(tmp_path / "keys.json", *(keys or (public(RSA),)))


@pytest.mark.parametrize(
    ("key", "algorithm", "more"),
    [(RSA, "RS256", {}), (RSA, "RS512", {"alg": "RS512"}), (RSA, "PS256", {"alg": "PS256"}), (EC, "ES256", {}),
     (ED, "EdDSA", {})],
    ids=["RS256", "RS512", "PS256", "ES256", "EdDSA"],
)  # fmt: skip
def test_verified(key, algorithm, more, sets):
    """A token of the issuer is who it says; its end is for later to judge."""
    found = sets(public(OTHER), public(key, **more))
    token = signed(key, algorithm)

    assert found.sets.verify("s", token) == CLAIMS
    assert found.sets.verify("s", signed(key, algorithm, exp=1)) == CLAIMS | {"exp": 1}
    assert found.sets.verify("other", token) is None
    assert found.sets.verify("nobody", token) is None
    assert [] == found.reports


def unsigned(**claims):
    return jwt.encode(CLAIMS | claims, None, algorithm="none").encode()


@pytest.mark.parametrize(
    "token",
    [
        signed(OTHER),
        signed(iss="https://issuer/"),
        signed(aud="them"),
        signed(aud=["them"]),
        unsigned(),
        signed(EC, "ES256"),
        signed(RSA, "RS512"),
        jwt.encode(CLAIMS, "s" * 32, algorithm="HS256").encode(),
        signed()[:-4] + b"AAAA",
        signed().rpartition(b".")[0] + b".",
        signed() + b".x",
        b"a.b.c",
        b"",
        signed(pad="x" * 20_000),
        signed(headers={"kid": "another"}),
    ],
    ids=range(15),
)
def test_not_verified(token, sets):
    """Whatever else there is, nobody here vouches for it."""
    found = sets(public(RSA, kid="one", alg="RS256"))

    assert found.sets.verify("s", signed(headers={"kid": "one"})) == CLAIMS
    assert found.sets.verify("s", token) is None


def test_a_public_key_is_no_shared_secret(sets):
    """A token that is "signed" with the public key, as if it were a secret, is not (RFC 8725, 2.1)."""
    found = sets()
    pem = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    parts = [urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in ({"alg": "HS256"}, CLAIMS)]
    text = b".".join(parts)
    forged = text + b"." + urlsafe_b64encode(hmac.digest(pem, text, "sha256")).rstrip(b"=")

    assert found.sets.verify("s", forged) is None
    assert not any(name.startswith("HS") or name == "none" for name in ALGORITHMS)


def test_other_keys(sets):
    """The file is read again; what was verified with keys that are gone has to be verified anew."""
    found = sets()
    assert not found.sets.changed()
    found.write(public(OTHER))

    assert found.sets.changed()
    assert not found.sets.changed()
    assert found.sets.verify("s", signed()) is None
    assert found.sets.verify("s", signed(OTHER)) == CLAIMS

    found.path.write_bytes(b"nonsense")
    found.now += 10.0

    assert not found.sets.changed()
    assert found.sets.verify("s", signed(OTHER)) == CLAIMS
    assert [f"{found.path}: is not JSON"] == found.reports


def test_no_file(tmp_path):
    """Without its keys no token is verified, and that is told."""
    reports = []
    rule = TokenRule(issuer="https://issuer", audience="us", jwks_file=str(tmp_path / "missing"))
    sets = KeySets({"s": rule}, lambda: 0.0, reports.append)

    assert sets.verify("s", signed()) is None
    assert 1 == len(reports)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (b"", "is not JSON"),
        (b"[" * 5000, "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[]", "is no JSON Web Key Set: it has no list `keys`"),
        (b'{"keys": {}}', "is no JSON Web Key Set: it has no list `keys`"),
        (b'{"keys": []}', "holds no public key that signatures can be verified with"),
        (key_set({"kty": "oct", "k": "c2VjcmV0"}), "holds no public key that signatures can be verified with"),
        (key_set(public(RSA, use="enc")), "holds no public key that signatures can be verified with"),
        (key_set(1, "x", {"kty": "new"}), "holds no public key that signatures can be verified with"),
        (b" " * (LONGEST + 1), "is larger than 256 KiB"),
    ],
)
def test_files_of_no_use(text, fault):
    """What is wrong is said in words that quote nothing."""

    assert fault == parse(text)


def test_keys_of_other_kinds_are_passed_over():
    """A set may have keys that this program has no use for."""
    keys = parse(key_set({"kty": "new"}, public(RSA, use="enc"), public(EC)))

    assert 1 == len(keys)


def test_revised(sets):
    """Other rules take the files over: with new keys at once, and with the last good ones where the file is unfit."""
    found = sets()
    found.write(public(EC))
    rule = TokenRule(issuer="https://issuer", audience="us", jwks_file=str(found.path))
    other = found.sets.revised({"t": rule})

    assert (CLAIMS, None) == (other.verify("t", signed(EC, "ES256")), other.verify("t", signed()))
    assert CLAIMS == found.sets.verify("s", signed()), "until they are replaced, the former keys are used"

    found.path.write_text("no keys")
    found.now += 10.0

    assert CLAIMS == other.revised({"u": rule}).verify("u", signed(EC, "ES256"))
    assert 1 == len(found.reports)
