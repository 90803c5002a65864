"""Names of models, and keys that stand in their place."""

from __future__ import annotations

import base64
import random
import string

import pytest

from sidecar.core.key.model_name import HIDDEN, shown_model

MODELS = [
    "",
    "gpt-4o-mini-2024-07-18",
    "gpt-5.1",
    "o3",
    "text-embedding-3-large",
    "ft:gpt-4o-2024-08-06:my-org:custom-suffix:7p4lURel",
    "ft:gpt-3.5-turbo-0125:my-org::9aB3xY7z:ckpt-step-90",
    "claude-3-5-sonnet-20241022",
    "anthropic.claude-3-5-sonnet-20240620-v1:0",
    "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-sonnet-4-20250514-v1:0",
    "arn:aws:bedrock:us-east-1:123456789012:provisioned-model/ab1cd2ef3gh4",
    "accounts/fireworks/models/llama-v3p1-405b-instruct",
    "meta-llama/Meta-Llama-3.1-405B-Instruct-Turbo",
    "meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8",
    "mistralai/Mixtral-8x7B-Instruct-v0.1",
    "Qwen/Qwen2.5-Coder-32B-Instruct-GPTQ-Int4",
    "Qwen/Qwen3-235B-A22B-Thinking-2507",
    "NousResearch/Nous-Hermes-2-Mixtral-8x7B-DPO",
    "nvidia/Llama-3_1-Nemotron-Ultra-253B-v1",
    "deepseek-ai/DeepSeek-R1-Distill-Llama-70B",
    "models/gemini-2.5-flash-preview-05-20",
    "publishers/google/models/gemini-1.5-pro-002",
    "ep-20240604123456-abcde",
    "@cf/meta/llama-3.1-8b-instruct-fp8",
    "MyCompanyGpt4Deployment",
    "our chat model",
    "模型",
]
KEYS = [
    "sk-abc",
    "sk-proj-0a1b2c3d4e5f",
    "Bearer abc",
    " sk-ant-api03-x",
    "AIzaSyA",
    "gsk_x8Kd0Qz7rT1mWb5VnLpE3YcH9uJf2GaS",  # pragma: allowlist secret
    "xai-x8Kd0Qz7rT1mWb5VnLpE3YcH9uJf2GaS",  # pragma: allowlist secret
    "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.c2ln",  # pragma: allowlist secret
    "0123456789abcdef0a1b2c3d4e5f6071",  # pragma: allowlist secret
    "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",  # pragma: allowlist secret
    "my-key-x8Kd0Qz7rT1mWb5VnLpE3YcH9uJf2GaS",  # pragma: allowlist secret
    "6f1e0e8e-5c1f-4c43-8c2d-0123456789ab",
    base64.b64encode(bytes(range(100, 132))).decode(),
]


@pytest.mark.parametrize("name", MODELS)
def test_models(name: str):
    """They are told as they are."""
    assert name == shown_model(name)


@pytest.mark.parametrize("key", KEYS)
def test_keys(key: str):
    """Nothing of them is told."""
    assert HIDDEN == shown_model(key)


@pytest.mark.parametrize(
    "alphabet",
    [string.ascii_letters + string.digits, string.ascii_letters + string.digits + "+/", "0123456789abcdef"],
    ids=["letters and digits", "base64", "hex"],
)
def test_random_keys(alphabet: str):
    """Of 10 000 of 32 characters and more at most ten are told."""
    draw = random.Random(5)
    texts = ["".join(draw.choices(alphabet, k=draw.choice((32, 40, 64, 84)))) for _ in range(10_000)]

    assert sum(shown_model(text) != HIDDEN for text in texts) <= 10
