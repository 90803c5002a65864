"""Paths and secrets, told apart."""

from __future__ import annotations

import base64
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.pasted import LONGEST_WORD, is_plain, is_secret

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
    "busy.json",
    "sk-key.pem",
    "/",
    "~/x",
]
EITHER = ["token", "hunter2", "certificate", "clé", "…", ".", ".."]


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


@given(st.text(max_size=80))
def test_never_both(text: str):
    """What is quoted is no secret."""
    assert not (is_secret(text) and is_plain(text))
