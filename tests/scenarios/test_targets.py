"""A target reaches the service byte for byte, whatever stands in it; and what only looks like a known path is not."""

from __future__ import annotations

import asyncio
import random
import socket

import pytest

from sidecar.core.rules import CacheMode, CacheRule, Region, Service
from sidecar.dialects import DIALECTS
from tests.scenarios.answers import CLAUDE, CLAUDE_PATH, completion, whole
from tests.scenarios.caller import Caller
from tests.scenarios.conftest import CHAT, CHAT_PATH
from tests.scenarios.tokens import AZURE_PATH, FIRST

PIECES = [
    b"%2F", b"%2f", b"..", b".", b"/", b"//", b":", b";", b"?", b"??", b"%zz", b"%", b"@", b"[", b"]", b"%00", b"%0a",
    b"%0d%0a", b"%20", b"%25", b"%2e%2e", b"%C3%A9", b"%c3%a9", b"+", b"&", b"&&", b"=", b"a=b", b"a", b"B", b"~", b"!",
    b"$", b"'", b"(", b")", b"*", b",", b"|", b"\\", b"^", b"`", b"{", b"}", b'"', b"<", b">", b"http://x/", b"u@h:1/",
    b"v1", b"models", b"chat", b"api-key=",
]  # fmt: skip

KNOWN = [
    b"/", b"//", b"/?", b"/??", b"/a?", b"/a%2Fb", b"/a%2fb", b"/a/../b", b"/a/./b", b"/..", b"/../..", b"/a//b",
    b"//a", b"///a", b"/a:b", b"/:", b"/a;b", b"/a;b=c?d;e", b"/a?b?c", b"/a?b=c&b=d&&", b"/%zz", b"/%", b"/%2", b"/@a",
    b"/u:p@h", b"/[::1]", b"/a[0]?b[]=1", b"/%00", b"/a%00b", b"/a?%00", b"/a?x=http://h/?y",
    b"//host:99/a", b"/a%0d%0ab",
]  # fmt: skip


def targets(count: int) -> list[bytes]:
    """Those known to be hard, and more from hard pieces; the same in every run."""
    chance = random.Random(7)
    made = (b"/" + b"".join(chance.choices(PIECES, k=chance.randint(1, 8))) for _ in range(count))
    return [*KNOWN, *made]


async def answer(_head, _body, writer):
    """Whatever is asked, a chat completion."""
    writer.write(whole(completion("A box.")))


@pytest.mark.parametrize("way", ["path", "host", "port", "resource"])
@pytest.mark.parametrize("base", ["", "/base%2Fpath"], ids=["bare", "base-path"])
async def test_byte_for_byte(way, base, build_lab, script):
    """Some hundred hard targets, by each way in which a service is found: what the service gets is what was sent."""
    upstream = await script(answer)
    region = Region("here", upstream.url + base)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    lab = await build_lab(
        upstream.url,
        services=(
            Service("path", DIALECTS["openai"], (region,), path="/openai"),
            Service("host", DIALECTS["generic"], (region,), hosts=("api.example.com",)),
            Service("port", DIALECTS["anthropic"], (region,), port=port),
            Service("resource", DIALECTS["azure-openai"], (region,), path="/azure", resource=True),
        ),
    )
    prefix = {"path": b"/openai", "resource": b"/azure/contoso"}.get(way, b"")
    host = b"API.example.com:443" if way == "host" else b"127.0.0.1:7400"
    wanted = targets(300)
    reader, writer = await asyncio.open_connection("127.0.0.1", port if way == "port" else lab.sidecar.port)

    for target in wanted:
        head = b"GET %b%b HTTP/1.1\r\nHost: %b\r\nAuthorization: Bearer sk\r\n\r\n" % (prefix, target, host)
        writer.write(head)
        reply = await Caller(reader, writer).reply()
        assert 200 == reply.status, target
    writer.close()

    got = [head.partition(b"\r\n")[0] for head, _ in upstream.seen]
    assert [b"GET %b%b HTTP/1.1" % (base.encode(), target) for target in wanted] == got


GUARDED = {
    "azure key": (CHAT_PATH, {"authorization": None, "api-key": "k"}, "/azure/RESOURCE"),
    "azure version": (f"{CHAT_PATH}?api-version=2024-10-21", {}, "/azure/RESOURCE"),
    "azure deployment": ("/openai/openai/deployments/gpt-4o/chat/completions", {}, "/azure/RESOURCE"),
    "azure, not cached": ("/openai/openai/deployments/gpt-4o/images?api-version=1", {}, "/azure/RESOURCE"),
    "microsoft's token": (CHAT_PATH, {"authorization": f"Bearer {FIRST}"}, "Microsoft"),
    "microsoft's token, bare": (CHAT_PATH, {"authorization": FIRST}, "Microsoft"),
    "microsoft's token beside a key": (CHAT_PATH, {"x-api-key": FIRST}, "Microsoft"),
    "microsoft's token, unknown path": ("/openai/v1/unheard-of", {"authorization": f"Bearer {FIRST}"}, "Microsoft"),
    "microsoft's token at anthropic": ("/anthropic/v1/messages", {"x-api-key": FIRST}, "Microsoft"),
}


@pytest.mark.parametrize(("path", "headers", "remedy"), GUARDED.values(), ids=GUARDED)
async def test_misdirected(path, headers, remedy, build_lab, script):
    """A call that is plainly meant for another service goes nowhere, and is told where it belongs."""
    upstream = await script(answer)
    # No local name, so that it is not taken for a stand-in of the vendor; nothing is ever sent there.
    region = Region("here", f"http://vendor.invalid:{upstream.port}")
    lab = await build_lab(
        upstream.url,
        services=(
            Service("openai", DIALECTS["openai"], (region,), path="/openai"),
            Service("anthropic", DIALECTS["anthropic"], (region,), path="/anthropic"),
        ),
    )

    reply = await lab.ask(path=path, headers=headers)

    assert 421 == reply.status
    assert "false" == reply.headers["x-should-retry"]
    assert remedy in reply.json()["error"]["message"]
    assert b"eyJ" not in reply.body
    assert [421] == [record.status for record in lab.records]


OTHER_BASES = {
    "no root": ("POST", "/openai/chat/completions", "OPENAI_BASE_URL={url}/openai/v1.", "lacks /v1"),
    "root twice": ("POST", "/openai/v1/v1/chat/completions", "OPENAI_BASE_URL={url}/openai/v1.", "has /v1 twice"),
    "no root, models": ("GET", "/openai/models", "OPENAI_BASE_URL={url}/openai/v1.", "lacks /v1"),
    "no root, not cached": ("POST", "/openai/files", "OPENAI_BASE_URL={url}/openai/v1.", "lacks /v1"),
    "root twice, anthropic": (
        "POST", "/anthropic/v1/v1/messages", "ANTHROPIC_BASE_URL={url}/anthropic.", "has /v1 twice",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("method", "path", "remedy", "why"), OTHER_BASES.values(), ids=OTHER_BASES)
async def test_root_missing_or_doubled(method, path, remedy, why, build_lab, script):
    """A call whose base URL is wrong by the API's root goes nowhere, and is told the right one."""
    upstream = await script(answer)
    lab = await build_lab(upstream.url)
    body = b"" if method == "GET" else CHAT

    reply = await lab.ask(body, method=method, path=path)

    assert (421, 0) == (reply.status, upstream.calls)
    assert "false" == reply.headers["x-should-retry"]
    assert remedy.format(url=lab.url) in reply.json()["error"]["message"]
    assert why in reply.json()["error"]["message"]


async def test_root_implied(lab, provider):
    """
    @ai-sdk/anthropic and anthropic read one variable, and only one of them sends the API's root: both are answered, and
    one's answer is a hit for the other.
    """
    headers = {"x-api-key": "k", "anthropic-version": "2023-06-01"}

    replies = [await lab.ask(CLAUDE, path=path, headers=headers) for path in ("/anthropic/messages", CLAUDE_PATH)]
    await lab.settle()

    assert [200, 200] == [reply.status for reply in replies]
    assert ["miss", "hit_memory"] == [record.outcome for record in lab.records]
    assert ["/v1/messages"] == [seen.target for seen in provider.seen]


async def test_azure_takes_microsofts_token(build_lab, script):
    """Where the token is meant to go, it goes."""
    upstream = await script(answer)
    lab = await build_lab(upstream.url)

    reply = await lab.ask(path=AZURE_PATH, headers={"authorization": f"Bearer {FIRST}"})

    assert 200 == reply.status
    assert 1 == upstream.calls


BENT = [
    "{}/x.css", "{}/", "{}.css", "{}%0a", "{}%00", "{}%3f", "{}%2f", "{}%20", "{};", "{};x.css", "{}/..", "{}/../x",
    "{}/%2e%2e/x", "{}/../completions", "{}%0d%0a.css", "{}:", "{}@x", "{}%23.css", "/x/..{}",
]  # fmt: skip

CHAT_PATHS = {
    "openai": ("/openai", "/v1/chat/completions"),
    "azure": ("/azure/contoso", "/openai/deployments/gpt-4o/chat/completions"),
    "azure-v1": ("/azure/contoso", "/openai/v1/chat/completions"),
    "anthropic": ("/anthropic", "/v1/messages"),
}


@pytest.mark.parametrize(("prefix", "path"), CHAT_PATHS.values(), ids=CHAT_PATHS)
async def test_what_looks_like_a_known_path(prefix, path, build_lab, script, dial):
    """A path that a service may take for a known one, or not, is forwarded as it is and never stored."""
    upstream = await script(answer)
    lab = await build_lab(upstream.url, cache=CacheRule(mode=CacheMode.ALWAYS))
    straight = path.replace("/v1/", "/%761/").replace("/chat/", "/%63hat/")
    bent = [form.format(path) for form in BENT] + [
        path.upper(),
        straight,
        path.replace("/", "%2F").replace("%2F", "/", 1),
    ]

    for form in bent:
        replies = [await (await dial(lab, {**CHAT, "max_tokens": 9}, path=prefix + form)).reply() for _ in range(2)]
        assert ["sidecar; fwd=bypass; detail=unknown-endpoint"] * 2 == [reply.cache for reply in replies], form

    assert [form for form in bent for _ in range(2)] == [head.split(b" ")[1].decode() for head, _ in upstream.seen]
    assert 0 == lab.sidecar.memory.entries


async def test_doubled_slashes(build_lab, script, dial):
    """Doubled slashes are looked through to find the endpoint, and count in the key."""
    upstream = await script(answer)
    lab = await build_lab(upstream.url)
    paths = [CHAT_PATH, "/openai//v1/chat/completions", "/openai/v1//chat/completions", CHAT_PATH]

    replies = [await (await dial(lab, path=path)).reply() for path in paths]

    assert ["sidecar; fwd=miss; stored"] * 3 == [reply.cache for reply in replies[:3]]
    assert replies[3].cache.startswith("sidecar; hit")
    assert [b"/v1/chat/completions", b"//v1/chat/completions", b"/v1//chat/completions"] == [
        head.split(b" ")[1] for head, _ in upstream.seen
    ]
