"""
The clients of the matrix: how each is told its base URL, and one call by each.

The rule: one function a client, which imports it inside, so that the list can be read where none is installed. The
functions of the Node clients stand in ``clients.mjs``. Run as a script, in an environment of its own: ``clients.py
NAME URL KEY [TEMPERATURE]``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

QUESTION = "What is in the box?"
MESSAGES = [{"role": "user", "content": QUESTION}]
GPT, CLAUDE = "gpt-4o", "claude-sonnet-4-6"
OPENAI = "{url}/openai/v1"
ANTHROPIC = "{url}/anthropic"
AZURE = "{url}/azure/RESOURCE"
AZURE_VERSION = "2024-10-21"


def by_openai(url: str, key: str, **how: Any) -> None:
    """A chat completion."""
    from openai import OpenAI  # noqa: PLC0415  see the rule

    OpenAI(base_url=OPENAI.format(url=url), api_key=key, max_retries=0).chat.completions.create(
        model=GPT, messages=MESSAGES, **how
    )


def by_azure(url: str, key: str, **how: Any) -> None:
    """A chat completion of a deployment."""
    from openai import AzureOpenAI  # noqa: PLC0415  see the rule

    AzureOpenAI(
        azure_endpoint=AZURE.format(url=url), api_version=AZURE_VERSION, api_key=key, max_retries=0
    ).chat.completions.create(model=GPT, messages=MESSAGES, **how)


def by_anthropic(url: str, key: str, **how: Any) -> None:
    """A message. Newer versions of the SDK have no word for a temperature, and take it as a further member."""
    from anthropic import Anthropic  # noqa: PLC0415  see the rule

    Anthropic(base_url=ANTHROPIC.format(url=url), api_key=key, max_retries=0).messages.create(
        model=CLAUDE, max_tokens=64, messages=MESSAGES, extra_body=how
    )


def by_langchain(url: str, key: str, **how: Any) -> None:
    """A chat model, invoked."""
    from langchain_openai import ChatOpenAI  # noqa: PLC0415  see the rule

    ChatOpenAI(model=GPT, base_url=OPENAI.format(url=url), api_key=key, max_retries=0, **how).invoke(QUESTION)


def by_llama_index(url: str, key: str, **how: Any) -> None:
    """A completion, which is a chat for this model."""
    from llama_index.llms.openai import OpenAI  # noqa: PLC0415  see the rule

    OpenAI(model=GPT, api_base=OPENAI.format(url=url), api_key=key, max_retries=0, **how).complete(QUESTION)


def by_litellm(url: str, key: str, **how: Any) -> None:
    """A completion."""
    import litellm  # noqa: PLC0415  see the rule

    litellm.completion(
        model=f"openai/{GPT}", api_base=OPENAI.format(url=url), api_key=key, messages=MESSAGES, num_retries=0, **how
    )


def by_pydantic_ai(url: str, key: str, **how: Any) -> None:
    """An agent's run without tools."""
    from pydantic_ai import Agent  # noqa: PLC0415  see the rule
    from pydantic_ai.models.openai import OpenAIChatModel  # noqa: PLC0415  see the rule
    from pydantic_ai.providers.openai import OpenAIProvider  # noqa: PLC0415  see the rule

    provider = OpenAIProvider(base_url=OPENAI.format(url=url), api_key=key)
    Agent(OpenAIChatModel(GPT, provider=provider)).run_sync(QUESTION, model_settings=how)


def by_instructor(url: str, key: str, **how: Any) -> None:
    """An answer in the form of a class, by way of a tool."""
    import instructor  # noqa: PLC0415  see the rule
    from openai import OpenAI  # noqa: PLC0415  see the rule
    from pydantic import BaseModel  # noqa: PLC0415  see the rule

    class Box(BaseModel):
        """What is in the box."""

        color: str
        weight: int

    client = instructor.from_openai(OpenAI(base_url=OPENAI.format(url=url), api_key=key, max_retries=0))
    client.chat.completions.create(model=GPT, messages=MESSAGES, response_model=Box, max_retries=0, **how)


@dataclass(frozen=True, slots=True)
class Client:
    """
    A row: the client's *name*, how its base URL is set, what makes one call by it, and the *packages* to install, the
    name where that is none. *ask* is None for a Node client, whose function stands in ``clients.mjs`` by the same
    name. *hits* says whether its second call at temperature 0 is a hit; *note* is what surprises about it.
    """

    name: str
    setting: str
    ask: Callable[..., None] | None = None
    packages: tuple[str, ...] = ()
    hits: bool = True
    note: str = ""

    @property
    def installs(self) -> tuple[str, ...]:
        """The packages to install, its own first."""
        return self.packages or (self.name,)


VERCEL_OPENAI, VERCEL_ANTHROPIC = ("@ai-sdk/openai", "ai"), ("@ai-sdk/anthropic", "ai")

CLIENTS = (
    Client("openai", f'`OpenAI(base_url="{OPENAI}")`', by_openai),
    Client(
        "openai (Azure)",
        f'`AzureOpenAI(azure_endpoint="{AZURE}")`',
        by_azure,
        packages=("openai",),
        note="`RESOURCE` is the first part of `RESOURCE.openai.azure.com`. The endpoint ends there: the SDK adds "
        "`/openai/deployments/…` by itself.",
    ),
    Client("anthropic", f'`Anthropic(base_url="{ANTHROPIC}")`', by_anthropic),
    Client("langchain-openai", f'`ChatOpenAI(base_url="{OPENAI}")`', by_langchain),
    Client(
        "llama-index-llms-openai",
        f'`OpenAI(api_base="{OPENAI}")`',
        by_llama_index,
        note="It ignores `OPENAI_BASE_URL`, and calls OpenAI directly where it has neither `api_base` nor "
        "`OPENAI_API_BASE`.",
    ),
    Client("litellm", f'`completion(api_base="{OPENAI}")`', by_litellm),
    Client("pydantic-ai-slim", f'`OpenAIProvider(base_url="{OPENAI}")`', by_pydantic_ai),
    Client("instructor", f'`from_openai(OpenAI(base_url="{OPENAI}"))`', by_instructor),
    Client("openai (npm)", f'`new OpenAI({{baseURL: "{OPENAI}"}})`', packages=("openai",)),
    Client("@anthropic-ai/sdk", f'`new Anthropic({{baseURL: "{ANTHROPIC}"}})`'),
    Client("@ai-sdk/openai (chat)", f'`createOpenAI({{baseURL: "{OPENAI}"}}).chat(…)`', packages=VERCEL_OPENAI),
    Client(
        "@ai-sdk/openai (store: false)",
        f'`createOpenAI({{baseURL: "{OPENAI}"}})(…)`, `providerOptions: {{openai: {{store: false}}}}`',
        packages=VERCEL_OPENAI,
    ),
    Client(
        "@ai-sdk/openai",
        f'`createOpenAI({{baseURL: "{OPENAI}"}})(…)`',
        packages=VERCEL_OPENAI,
        hits=False,
        note="`openai(…)` speaks the Responses API, where OpenAI stores each answer unless the call says otherwise. "
        "A call that stores something always goes to the provider. Use `openai.chat(…)`, or say `store: false`.",
    ),
    Client(
        "@ai-sdk/anthropic",
        f'`createAnthropic({{baseURL: "{ANTHROPIC}/v1"}})`',
        packages=VERCEL_ANTHROPIC,
        note="Its base URL ends with `/v1`; those of `anthropic` and `@anthropic-ai/sdk` do not. All three read "
        "`ANTHROPIC_BASE_URL`: where they share it, the sidecar adds what is missing for `api.anthropic.com`. For a "
        "gateway, give `baseURL` to this one.",
    ),
)


if __name__ == "__main__":
    name, at, key, *said = sys.argv[1:]
    [client] = [client for client in CLIENTS if client.name == name]
    assert client.ask
    client.ask(at, key, **({"temperature": float(said[0])} if said else {}))
