"""
The clients of the matrix: how each is told its base URL, and one call by each.

The rule: one function a client, which imports it inside, so that the list can be read where none is installed. Each
has a key of its own, so that none is answered with what another has asked. Run as a script, in an environment of its
own: ``clients.py NAME URL [TEMPERATURE]``.
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


def by_openai(url: str, key: str, **how: Any) -> None:
    """A chat completion."""
    from openai import OpenAI  # noqa: PLC0415  see the rule

    OpenAI(base_url=OPENAI.format(url=url), api_key=key, max_retries=0).chat.completions.create(
        model=GPT, messages=MESSAGES, **how
    )


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
    """A row: the *package* to install, how its base URL is set, and what makes one call by it."""

    package: str
    setting: str
    ask: Callable[..., None]


CLIENTS = (
    Client("openai", f'`OpenAI(base_url="{OPENAI}")`', by_openai),
    Client("anthropic", f'`Anthropic(base_url="{ANTHROPIC}")`', by_anthropic),
    Client("langchain-openai", f'`ChatOpenAI(base_url="{OPENAI}")`', by_langchain),
    Client("llama-index-llms-openai", f'`OpenAI(api_base="{OPENAI}")`', by_llama_index),
    Client("litellm", f'`completion(api_base="{OPENAI}")`', by_litellm),
    Client("pydantic-ai-slim", f'`OpenAIProvider(base_url="{OPENAI}")`', by_pydantic_ai),
    Client("instructor", f'`from_openai(OpenAI(base_url="{OPENAI}"))`', by_instructor),
)


if __name__ == "__main__":
    name, at, *said = sys.argv[1:]
    [client] = [client for client in CLIENTS if client.package == name]
    client.ask(at, f"sk-{name}", **({"temperature": float(said[0])} if said else {}))
