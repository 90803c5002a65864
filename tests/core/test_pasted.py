"""Paths and secrets, told apart."""

from __future__ import annotations

import base64
import random
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.pasted import LONGEST_WORD, holds_key, is_plain, is_secret

SECRETS = [
    "sk-abcdef",
    "sk_live_abcdef",
    "sk-proj-aB3/x",
    "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.c2ln",  # pragma: allowlist secret
    "ghp_abcdef",
    "AKIAABCDEFGH",  # pragma: allowlist secret
    "Bearer abc",
    "correct-horse-battery",
    "p4$$word!",
    "user:pass word",
    "-----BEGIN PRIVATE KEY-----",  # pragma: allowlist secret
    '{"choices": []}',
    "k1:" + base64.b64encode(bytes(range(32))).decode(),
    base64.b64encode(bytes(range(32))).decode(),
    base64.b64encode(bytes(range(200, 232))).decode(),
    "0123456789abcdef0a1b2c3d4e5f6071",  # pragma: allowlist secret
    "/mnt/0123456789abcdef0a1b2c3d4e5f6071",  # pragma: allowlist secret
    "/sk-abcdefgh",
    "A" * (LONGEST_WORD + 1),
    "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",  # pragma: allowlist secret
    "/wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",  # pragma: allowlist secret
    "./wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",  # pragma: allowlist secret
    "/mnt/wJalrXUtnFEMIK7",  # pragma: allowlist secret
    "/aB3/xY9/Qw4/zT1/Kp7/x",
    "p@ssw0rd/with/slash",
    "Pass/Word",
    "hunter2",
    "winter/2024",
    "clé",
    "/mnt/p=ssw&rd",
]
PATHS = [
    "/var/run/secrets/sidecar/cache.key",
    "/var/run/secrets/kubernetes.io/serviceaccount/token",
    "/var/lib/kubelet/pods/6f1e0e8e-5c1f-4c43-8c2d-0123456789ab/volumes/kubernetes.io~secret/x/..2026_11_30_12_00_00.1",
    "/mnt/secrets-store/openai-eu-2024-key",
    "/mnt/MyCompanyOpenAiKey2024Prod",
    "/mnt/api-key",
    "/mnt/task-token",
    "./correct-horse-battery",
    "secrets/token",
    "secrets/redis-password",
    "certs/redis/tls.crt",
    "busy.json",
    "/var/run/secrets/azure/tokens/azure-identity-token",
    "/var/run/secrets/eks.amazonaws.com/serviceaccount/token",
    "/var/run/secrets/tokens/vault-token",
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/ssl/certs/GlobalSign_Root_CA_-_R3.pem",
    "/etc/ssl/certs/ISRG_Root_X1.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/usr/local/share/ca-certificates/company-root-2024.crt",
    "/run/secrets/redis_password",
    "/run/secrets/REDIS_PASSWORD",
    "/run/secrets/OPENAI_API_KEY_2",
    "/etc/sidecar/ca.pem",
    "/mnt/secrets-store/redis-password-2024",
    "/mnt/secrets-store/OpenAIKey",
    "/mnt/secrets-store/openai-key-v2",
    "/vault/secrets/redis",
    "/etc/secret-volume/..data/token",
    "/etc/secret-volume/..2026_11_30_12_00_00.123456789/token",
    "/home/app/.config/sidecar/token",
    "/Users/anna/Library/ApplicationSupport/sidecar/token",
    "/var/lib/docker/volumes/app_secrets/_data/redis.key",
    "/lost+found/token",
    "/opt/app-1.2.3/conf/admin.token",
    "/srv/AppData2024/token",
    "../secrets/token",
    "~/.config/sidecar/admin.token",
    "sk-key.pem",
    "/",
    "~/x",
]
EITHER = ["token", "certificate", "…", ".", ".."]


@pytest.mark.parametrize("text", SECRETS)
def test_secrets(text: str):
    """They are taken for what they are, and never quoted."""
    assert is_secret(text)
    assert not is_plain(text)


@pytest.mark.parametrize("text", PATHS)
def test_paths(text: str):
    """They may be quoted."""
    assert not is_secret(text)
    assert is_plain(text)


@pytest.mark.parametrize("text", [*EITHER, "a\0b", "a\nb"])
def test_what_may_be_either(text: str):
    """A short word is no secret that anybody complains of, but it isn't quoted."""
    assert not is_secret(text)
    assert not is_plain(text)


@pytest.mark.parametrize("alphabet", ["0123456789abcdef", "0123456789abcdefghijklmnopqrstuvwxyz"])
def test_random_names(alphabet: str):
    """Nearly all of them are found, in a folder too."""
    draw = random.Random(7)
    texts = ["/mnt/" + "".join(draw.choices(alphabet, k=40)) for _ in range(500)]

    assert sum(map(is_secret, texts)) > 495


ALPHABETS = {
    "base64": string.ascii_letters + string.digits + "+/",
    "base64url": string.ascii_letters + string.digits + "-_",
    "letters and digits": string.ascii_letters + string.digits,
    "hex": "0123456789abcdef",
    "HEX": "0123456789ABCDEF",
}


@pytest.mark.parametrize("before", ["", "/", "./", "/mnt/"])
@pytest.mark.parametrize("alphabet", ALPHABETS.values(), ids=ALPHABETS)
def test_random_keys(alphabet: str, before: str):
    """Of 10 000 random ones of 32 to 64 characters, slashes included, at most five pass as paths (40: those of AWS)."""
    draw = random.Random(11)
    texts = [before + "".join(draw.choices(alphabet, k=draw.choice((32, 40, 40, 43, 64)))) for _ in range(10_000)]

    assert len([text for text in texts if not is_secret(text)]) <= 5


@pytest.mark.parametrize("alphabet", list(ALPHABETS.values())[:3], ids=list(ALPHABETS)[:3])
def test_short_random_keys(alphabet: str):
    """Those of 20 characters are found without a folder, and 99 of 100 are in one."""
    draw = random.Random(13)
    texts = ["".join(draw.choices(alphabet, k=20)) for _ in range(10_000)]

    assert [] == [text for text in texts if not (is_secret(text) or text.startswith("/"))]
    assert sum(is_secret("/mnt/" + text) for text in texts) > 9_900


@given(st.text(max_size=80))
def test_never_both(text: str):
    """What is quoted is no secret."""
    assert not (is_secret(text) and is_plain(text))


@pytest.mark.parametrize(
    "text",
    [
        "sk-proj-abcdefghij0123456789",
        "*sk-proj-abcdefghij0123456789",
        "https://gateway.example/v1?key=AIzaSyA1b2C3d4E5f6G7h8I9",
        "Bearer eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0",
        "a:" + base64.b64encode(bytes(range(32))).decode(),
    ],
)
def test_what_holds_a_key(text: str):
    """It begins like one, or is random, and is as long as one."""
    assert holds_key(text)


@pytest.mark.parametrize(
    "text",
    ["", "sk-team", "gpt-4.1-mini-2025-04-14", "https://my-resource-name.openai.azure.com/openai", "header:x-team",
     "11111111-2222-3333-4444-555555555555", "/var/run/secrets/azure/tokens/azure-identity-token",
     "text-embedding-3-large",
     "https://cognitiveservices.azure.com/.default", "claude-sonnet-4-5-20250929", "redis+sentinel://a,b/main/0"],
)  # fmt: skip
def test_what_holds_none(text: str):
    """Names, addresses and paths."""
    assert not holds_key(text)
