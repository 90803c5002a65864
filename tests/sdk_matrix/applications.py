"""
The applications of the matrix by injection: one call by each client, with nothing said of where it goes.

The rule: a program names no base URL. What it reads from its environment is what its own developers put there before
they had heard of a sidecar: keys, and the real addresses of their Azure resources.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

RESOURCE = "https://contoso.openai.azure.com"
DOCUMENTS = "https://contoso-documents.cognitiveservices.azure.com"
"""Azure's portal shows them with a slash at the end, and so they stand in manifests."""

ANSWERED = "answered:"
"""What a program prints before the text that it got."""

_ASKED = '[{"role": "user", "content": "What is in the box?"}]'
_OPENAI_KEY, _CLAUDE_KEY, _AZURE_KEY = ("OPENAI_API_KEY",), ("ANTHROPIC_API_KEY",), ("AZURE_OPENAI_API_KEY",)
_AZURE = MappingProxyType({"AZURE_OPENAI_ENDPOINT": f"{RESOURCE}/", "OPENAI_API_VERSION": "2024-10-21"})
_OPENAI_BY, _CLAUDE_BY, _AZURE_BY = "OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "AZURE_OPENAI_ENDPOINT"


@dataclass(frozen=True, slots=True)
class Application:
    """
    A row: the *client*, what makes it in a program (*made*), the variable *by* which its calls arrive (``""``: they go
    past the sidecar), its *program* (for Node, an ES module), and the *packages* it needs, its own first. Its container
    has *keys* from a Secret and *literals*. *node*: it runs on Node.js. *note* is what people should know.
    """

    client: str
    made: str
    by: str
    program: str
    packages: tuple[str, ...]
    keys: tuple[str, ...] = ()
    literals: Mapping[str, str] = field(default_factory=dict)
    node: bool = False
    note: str = ""


_AZURE_OPENAI_NOTE = "`OPENAI_BASE_URL` is not set beside it: the Azure client of Node.js would call that, or throw."

APPLICATIONS = (
    Application(
        "openai", "`OpenAI()`", _OPENAI_BY,
        f"""
from openai import OpenAI
answer = OpenAI(max_retries=0).chat.completions.create(model="gpt-4o", messages={_ASKED})
print("{ANSWERED}", answer.choices[0].message.content)
""",
        ("openai",), _OPENAI_KEY,
    ),
    Application(
        "openai (Azure)", "`AzureOpenAI()`", _AZURE_BY,
        f"""
from openai import AzureOpenAI
answer = AzureOpenAI(max_retries=0).chat.completions.create(model="gpt-4o", messages={_ASKED})
print("{ANSWERED}", answer.choices[0].message.content)
""",
        ("openai",), _AZURE_KEY, _AZURE, note=_AZURE_OPENAI_NOTE,
    ),
    Application(
        "anthropic", "`Anthropic()`", _CLAUDE_BY,
        f"""
from anthropic import Anthropic
answer = Anthropic(max_retries=0).messages.create(model="claude-sonnet-4-6", max_tokens=64, messages={_ASKED})
print("{ANSWERED}", answer.content[0].text)
""",
        ("anthropic",), _CLAUDE_KEY,
    ),
    Application(
        "azure-ai-documentintelligence",
        '`DocumentIntelligenceClient(os.environ["DOCUMENTINTELLIGENCE_ENDPOINT"], AzureKeyCredential(…))`',
        "DOCUMENTINTELLIGENCE_ENDPOINT",
        f"""
import os
from azure.ai.documentintelligence import DocumentIntelligenceClient
from azure.core.credentials import AzureKeyCredential
key = AzureKeyCredential(os.environ["DOCUMENTINTELLIGENCE_KEY"])
client = DocumentIntelligenceClient(os.environ["DOCUMENTINTELLIGENCE_ENDPOINT"], key)
poller = client.begin_analyze_document("prebuilt-read", b"%PDF-1.7", content_type="application/octet-stream")
print("{ANSWERED}", poller.result().content)
""",
        ("azure-ai-documentintelligence",), ("DOCUMENTINTELLIGENCE_KEY",),
        {"DOCUMENTINTELLIGENCE_ENDPOINT": f"{DOCUMENTS}/"},
        note="The sidecar needs an `azure-documents` service with a port of its own and the resource as its region. "
        "The answer's `Operation-Location` then names the sidecar, so the polls arrive, too. With an Entra token "
        "instead of a key the SDK refuses `http://` before it sends anything, unless each call says "
        "`enforce_https=False`.",
    ),
    Application(
        "langchain-openai", '`ChatOpenAI(model="gpt-4o")`', _OPENAI_BY,
        f"""
from langchain_openai import ChatOpenAI
print("{ANSWERED}", ChatOpenAI(model="gpt-4o", max_retries=0).invoke("What is in the box?").content)
""",
        ("langchain-openai",), _OPENAI_KEY,
    ),
    Application(
        "langchain-openai (Azure)", '`AzureChatOpenAI(azure_deployment="gpt-4o")`', _AZURE_BY,
        f"""
from langchain_openai import AzureChatOpenAI
print("{ANSWERED}", AzureChatOpenAI(azure_deployment="gpt-4o", max_retries=0).invoke("What is in the box?").content)
""",
        ("langchain-openai",), _AZURE_KEY, _AZURE,
    ),
    Application(
        "llama-index-llms-openai", '`OpenAI(model="gpt-4o")`', "",
        f"""
from llama_index.llms.openai import OpenAI
print("{ANSWERED}", OpenAI(model="gpt-4o", max_retries=0, timeout=5).complete("What is in the box?").text)
""",
        ("llama-index-llms-openai",), _OPENAI_KEY,
        note="It reads `OPENAI_API_BASE` and not `OPENAI_BASE_URL`, so its calls go past the sidecar. Set "
        "`OPENAI_API_BASE=https://api.openai.com/v1` in the manifest: injection rewrites it.",
    ),
    Application(
        "llama-index-llms-openai (its variable set)", '`OpenAI(model="gpt-4o")`', "OPENAI_API_BASE",
        f"""
from llama_index.llms.openai import OpenAI
print("{ANSWERED}", OpenAI(model="gpt-4o", max_retries=0, timeout=5).complete("What is in the box?").text)
""",
        ("llama-index-llms-openai",), _OPENAI_KEY, {"OPENAI_API_BASE": "https://api.openai.com/v1"},
    ),
    Application(
        "litellm", '`completion(model="openai/gpt-4o")`', _OPENAI_BY,
        f"""
import litellm
answer = litellm.completion(model="openai/gpt-4o", messages={_ASKED}, num_retries=0)
print("{ANSWERED}", answer.choices[0].message.content)
""",
        ("litellm",), _OPENAI_KEY,
    ),
    Application(
        "litellm (anthropic)", '`completion(model="anthropic/claude-sonnet-4-6")`', _CLAUDE_BY,
        f"""
import litellm
answer = litellm.completion(model="anthropic/claude-sonnet-4-6", messages={_ASKED}, num_retries=0)
print("{ANSWERED}", answer.choices[0].message.content)
""",
        ("litellm",), _CLAUDE_KEY,
    ),
    Application(
        "pydantic-ai-slim", '`Agent("openai-chat:gpt-4o")`', _OPENAI_BY,
        f"""
from pydantic_ai import Agent
print("{ANSWERED}", Agent("openai-chat:gpt-4o").run_sync("What is in the box?").output)
""",
        ("pydantic-ai-slim",), _OPENAI_KEY,
    ),
    Application(
        "instructor", '`from_provider("openai/gpt-4o")`', _OPENAI_BY,
        f"""
import instructor
from pydantic import BaseModel
class Box(BaseModel):
    color: str
    weight: int
client = instructor.from_provider("openai/gpt-4o")
print("{ANSWERED}", client.chat.completions.create(messages={_ASKED}, response_model=Box, max_retries=0))
""",
        ("instructor",), _OPENAI_KEY,
    ),
    Application(
        "openai (npm)", "`new OpenAI()`", _OPENAI_BY,
        f"""
import {{ OpenAI }} from "openai";
const answer = await new OpenAI({{ maxRetries: 0 }}).chat.completions.create({{ model: "gpt-4o", messages: {_ASKED} }});
console.log("{ANSWERED}", answer.choices[0].message.content);
""",
        ("openai",), _OPENAI_KEY, node=True,
    ),
    Application(
        "openai (npm, Azure)", "`new AzureOpenAI()`", _AZURE_BY,
        f"""
import {{ AzureOpenAI }} from "openai";
const client = new AzureOpenAI({{ maxRetries: 0 }});
const answer = await client.chat.completions.create({{ model: "gpt-4o", messages: {_ASKED} }});
console.log("{ANSWERED}", answer.choices[0].message.content);
""",
        ("openai",), _AZURE_KEY, _AZURE, node=True, note=_AZURE_OPENAI_NOTE,
    ),
    Application(
        "openai (npm, Azure, a variable of its own)", "`new AzureOpenAI({endpoint: process.env.CHAT_ENDPOINT})`",
        "CHAT_ENDPOINT",
        f"""
import {{ AzureOpenAI }} from "openai";
const {{ CHAT_ENDPOINT: endpoint, CHAT_KEY: apiKey }} = process.env;
const client = new AzureOpenAI({{ endpoint, apiKey, apiVersion: "2024-10-21", maxRetries: 0 }});
const answer = await client.chat.completions.create({{ model: "gpt-4o", messages: {_ASKED} }});
console.log("{ANSWERED}", answer.choices[0].message.content);
""",
        ("openai",), ("CHAT_KEY",), {"CHAT_ENDPOINT": f"{RESOURCE}/"}, node=True,
        note="Whatever the variable with the endpoint is called, `OPENAI_BASE_URL` is not set beside it. Injection "
        "cannot see an endpoint in the program's code or files, and this client then throws: take the endpoint from a "
        "variable.",
    ),
    Application(
        "@anthropic-ai/sdk", "`new Anthropic()`", _CLAUDE_BY,
        f"""
import {{ Anthropic }} from "@anthropic-ai/sdk";
const asked = {{ model: "claude-sonnet-4-6", max_tokens: 64, messages: {_ASKED} }};
const answer = await new Anthropic({{ maxRetries: 0 }}).messages.create(asked);
console.log("{ANSWERED}", answer.content[0].text);
""",
        ("@anthropic-ai/sdk",), _CLAUDE_KEY, node=True,
    ),
    Application(
        "@ai-sdk/openai", '`generateText({model: openai("gpt-4o")})`', _OPENAI_BY,
        f"""
import {{ generateText }} from "ai";
import {{ openai }} from "@ai-sdk/openai";
const answer = await generateText({{ model: openai("gpt-4o"), prompt: "What is in the box?", maxRetries: 0 }});
console.log("{ANSWERED}", answer.text);
""",
        ("@ai-sdk/openai", "ai"), _OPENAI_KEY, node=True,
    ),
    Application(
        "@ai-sdk/anthropic", '`generateText({model: anthropic("claude-sonnet-4-6")})`', _CLAUDE_BY,
        f"""
import {{ generateText }} from "ai";
import {{ anthropic }} from "@ai-sdk/anthropic";
const asked = {{ model: anthropic("claude-sonnet-4-6"), prompt: "What is in the box?", maxRetries: 0 }};
console.log("{ANSWERED}", (await generateText(asked)).text);
""",
        ("@ai-sdk/anthropic", "ai"), _CLAUDE_KEY, node=True,
        note="It wants a base URL that ends with `/v1`, and the variable has none for the sake of the other two. The "
        "sidecar adds what is missing where the service is `api.anthropic.com`. Behind a gateway paths go on as they "
        "come: there give `baseURL` with `/v1` to this client.",
    ),
)  # fmt: skip
