import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from sidecar.core.model import Facts, View
from sidecar.dialects.openai import facts as openai_facts

ASK = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        pytest.param({}, Facts(), id="plain"),
        pytest.param({"temperature": 0}, Facts(deterministic=True), id="temperature 0"),
        pytest.param({"temperature": 0.0}, Facts(deterministic=True), id="temperature 0.0"),
        pytest.param({"temperature": 0.1}, Facts(), id="temperature 0.1"),
        pytest.param({"temperature": False}, Facts(), id="temperature false"),
        pytest.param({"temperature": None}, Facts(), id="temperature null"),
        pytest.param({"temperature": "0"}, Facts(), id="temperature a string"),
        pytest.param({"seed": 7}, Facts(seeded=True), id="seed"),
        pytest.param({"seed": 0}, Facts(seeded=True), id="seed 0"),
        pytest.param({"seed": None}, Facts(), id="seed null"),
        pytest.param({"stream": False}, Facts(), id="whole"),
        pytest.param({"stream": None}, Facts(), id="stream null"),
        pytest.param({"stream": True}, Facts(view=View(stream=True, usage=False), inject_usage=True), id="stream"),
        pytest.param(
            {"stream": True, "stream_options": {"include_usage": True}},
            Facts(view=View(stream=True)),
            id="stream with usage",
        ),
        pytest.param(
            {"stream": True, "stream_options": {"include_usage": False}},
            Facts(view=View(stream=True, usage=False)),
            id="stream without usage",
        ),
        pytest.param(
            {"stream": True, "stream_options": {"include_obfuscation": False}},
            Facts(view=View(stream=True, usage=False), inject_usage=True),
            id="stream with other options",
        ),
        pytest.param(
            {"stream": True, "stream_options": None},
            Facts(view=View(stream=True, usage=False)),
            id="stream options null",
        ),
        pytest.param(
            {"stream": True, "store": True},
            Facts(view=View(stream=True, usage=False), bypass="store"),
            id="nothing is injected into a bypassed call",
        ),
    ],
)
def test_chat_is_read(more, expected):
    """Determinism is only what was said aloud; a stream's usage is asked for where the caller left it open."""
    assert structs.replace(expected, model=ASK["model"], expects=1) == openai_facts.chat(ASK | more)


def say(*parts, **message):
    return {"messages": [{"role": "user", "content": list(parts), **message}]}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"store": False}, ""),
        ({"store": None}, ""),
        ({"store": True}, "store"),
        ({"web_search_options": {}}, "server-tools"),
        ({"data_sources": [{"type": "azure_search"}]}, "server-tools"),
        ({"model": "gpt-4o-search-preview"}, "server-tools"),
        ({"model": "gpt-5-search-api"}, "server-tools"),
        ({"tools": None}, ""),
        ({"tools": []}, ""),
        ({"tools": [{"type": "function", "function": {"name": "f"}}, {"type": "custom"}]}, ""),
        ({"tools": [{"type": "function"}, {"type": "browser_search"}]}, "server-tools"),
        (say({"type": "text", "text": "hi"}), ""),
        (say({"type": "file", "file": {"file_data": "data:,x"}}), ""),
        (say({"type": "file", "file": {"file_id": "file_1"}}), "file-id"),
        (say(audio={"id": "audio_1"}), "stateful"),
        (say(audio=None), ""),
        ({"model": 1}, "unreadable"),
        ({"model": None}, "unreadable"),
        ({"stream": "yes"}, "unreadable"),
        ({"stream": 1}, "unreadable"),
        ({"stream_options": []}, "unreadable"),
        ({"stream_options": {"include_usage": 1}}, "unreadable"),
        ({"tools": {}}, "unreadable"),
        ({"tools": ["function"]}, "unreadable"),
        ({"messages": "hi"}, ""),
    ],
    ids=str,
)
def test_chat_that_is_never_looked_up(more, expected):
    """State, the service's own tools and files are bypassed, and so is what cannot be read."""
    assert expected == openai_facts.chat(ASK | more).bypass


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"type": "image_url", "image_url": {"url": "https://x/a.png"}}, False),
        ({"type": "input_image", "image_url": "HTTP://x/a.png"}, False),
        ({"type": "input_file", "file_url": "https://x"}, False),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}, True),
        ({"type": "input_image", "image_url": None}, True),
        ({"type": "text", "text": "https://x"}, True),
    ],
    ids=str,
)
def test_what_stands_behind_a_link_changes(part, expected):
    """A question with a link has no one answer, whatever its temperature and seed; it may still be looked up."""
    message = {"role": "user", "content": [part]}
    still = {"model": "m", "temperature": 0, "seed": 1, "store": False}
    chat, responses = (
        openai_facts.chat(still | {"messages": [message]}),
        openai_facts.responses(still | {"input": [message]}),
    )

    assert [(expected, expected, "")] * 2 == [(f.deterministic, f.seeded, f.bypass) for f in (chat, responses)]
    assert expected == openai_facts.embeddings({"input": [part]}).deterministic
    assert expected == openai_facts.input_tokens({"input": [message]}).deterministic


RESPOND = {"model": "gpt-5", "input": "hi", "store": False}


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        pytest.param(RESPOND, Facts("gpt-5"), id="plain"),
        pytest.param(RESPOND | {"temperature": 0}, Facts("gpt-5", deterministic=True), id="temperature 0"),
        pytest.param(RESPOND | {"stream": True}, Facts("gpt-5", View(stream=True)), id="usage is always streamed"),
    ],
)
def test_responses_are_read(members, expected):
    """A stream of responses always ends with its usage: nothing is injected."""
    assert expected == openai_facts.responses(members)


def tool(**members):
    return RESPOND | {"tools": [{"type": "function", "name": "f"}, members]}


def items(*given):
    return RESPOND | {"input": list(given)}


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"model": "gpt-5", "input": "hi"}, "store"),
        (RESPOND | {"store": None}, "store"),
        (RESPOND | {"store": 0}, "store"),
        (RESPOND | {"store": True}, "store"),
        (RESPOND | {"previous_response_id": "resp_1"}, "previous-response-id"),
        (RESPOND | {"previous_response_id": None}, ""),
        (RESPOND | {"conversation": "conv_1"}, "conversation"),
        (RESPOND | {"conversation": {"id": "conv_1"}}, "conversation"),
        (RESPOND | {"background": True}, "background"),
        (RESPOND | {"background": False}, ""),
        (RESPOND | {"prompt": {"id": "pmpt_1"}}, "prompt-template"),
        (RESPOND | {"prompt_cache_options": {"mode": "explicit"}}, ""),
        (RESPOND | {"prompt_cache_options": {"prewarm": True}}, "stateful"),
        (RESPOND | {"prompt_cache_options": {"comparison_response_id": "resp_1"}}, "stateful"),
        (tool(type="custom"), ""),
        (tool(type="function", name=None), ""),
        (tool(type="function", name=["f"]), "server-tools"),
        (tool(type="function", name={}), "server-tools"),
        (tool(type="function", function={"name": [1]}), "server-tools"),
        (tool(type="function", function={"name": 1}), "server-tools"),
        (tool(type="local_shell"), ""),
        (tool(type="apply_patch"), ""),
        (tool(type="web_search"), "server-tools"),
        (tool(type="web_search_preview_2025_03_11"), "server-tools"),
        (tool(type="file_search"), "server-tools"),
        (tool(type="code_interpreter"), "server-tools"),
        (tool(type="mcp"), "server-tools"),
        (tool(type="computer_use_preview"), "server-tools"),
        (tool(type="image_generation"), "server-tools"),
        (tool(type="not yet invented"), "server-tools"),
        (tool(), "server-tools"),
        (tool(type=["function"]), "server-tools"),
        (tool(type="shell"), "server-tools"),
        (tool(type="shell", environment={"type": "container_auto"}), "server-tools"),
        (tool(type="shell", environment={"type": "local"}), ""),
        (tool(type="tool_search"), "server-tools"),
        (tool(type="tool_search", execution="client"), ""),
        (tool(type="namespace", tools=[{"type": "function"}, {"type": "custom"}]), ""),
        (tool(type="namespace", tools=[{"type": "mcp"}]), "server-tools"),
        ({"model": "gpt-5", "tools": [{"type": "web_search"}]}, "server-tools"),
        (items({"role": "user", "content": "hi"}), ""),
        (items({"type": "item_reference", "id": "msg_1"}), "item-reference"),
        (items({"id": "msg_1"}), "item-reference"),
        (items({"id": "msg_1", "type": None}), "item-reference"),
        (items({"id": "fc_1", "type": "function_call", "call_id": "call_1"}), ""),
        (items({"role": "user", "content": [{"type": "input_file", "file_id": "file_1"}]}), "file-id"),
        (items({"role": "user", "content": [{"type": "input_image", "file_id": None}]}), ""),
        (items({"type": "function_call_output", "output": [{"type": "input_file", "file_id": "file_1"}]}), "file-id"),
        (items({"type": "computer_call_output", "output": {"file_id": "file_1"}}), "file-id"),
        (RESPOND | {"stream": "yes"}, "unreadable"),
        (RESPOND | {"model": []}, "unreadable"),
    ],
    ids=str,
)
def test_responses_that_are_never_looked_up(members, expected):
    """A response is looked up only where the service keeps nothing of it and uses nothing that it kept."""
    assert expected == openai_facts.responses(members).bypass


@pytest.mark.parametrize(
    ("read", "members", "expected"),
    [
        pytest.param(
            openai_facts.completions,
            {"model": "m", "prompt": "hi", "temperature": 0, "stream": True},
            Facts("m", View(stream=True, usage=False), deterministic=True, inject_usage=True, expects=1),
            id="completions",
        ),
        pytest.param(openai_facts.embeddings, {"model": "m"}, Facts("m", deterministic=True), id="embeddings"),
        pytest.param(
            openai_facts.embeddings,
            {"model": 1},
            Facts(deterministic=True, bypass="unreadable"),
            id="embeddings, no name",
        ),
        pytest.param(openai_facts.moderations, {"input": "hi"}, Facts(deterministic=True, expects=1), id="moderations"),
        pytest.param(
            openai_facts.moderations,
            {"input": ["hi", "ho"]},
            Facts(deterministic=True, expects=2),
            id="moderations of two",
        ),
        pytest.param(
            openai_facts.moderations,
            {"input": [{"type": "text", "text": "hi"}]},
            Facts(deterministic=True),
            id="moderations of parts",
        ),
        pytest.param(openai_facts.input_tokens, {"model": "m"}, Facts("m", deterministic=True), id="count"),
        pytest.param(
            openai_facts.input_tokens,
            {"model": "m", "previous_response_id": "resp_1"},
            Facts("m", deterministic=True, bypass="previous-response-id"),
            id="count of what is kept there",
        ),
        pytest.param(openai_facts.transcription, {"model": "m"}, Facts("m", deterministic=True), id="transcription"),
        pytest.param(
            openai_facts.transcription,
            {"model": "m", "temperature": "0.0"},
            Facts("m", deterministic=True),
            id="transcription at 0",
        ),
        pytest.param(
            openai_facts.transcription, {"model": "m", "temperature": "0.2"}, Facts("m"), id="transcription at 0.2"
        ),
        pytest.param(
            openai_facts.transcription, {"model": "m", "temperature": "warm"}, Facts("m"), id="transcription, no number"
        ),
        pytest.param(
            openai_facts.transcription,
            {"model": "m", "stream": "true"},
            Facts("m", View(stream=True), deterministic=True),
            id="transcription, streamed",
        ),
        pytest.param(
            openai_facts.transcription,
            {"model": "m", "response_format": " SRT"},
            Facts("m", deterministic=True, format="srt"),
            id="translation, as subtitles",
        ),
        pytest.param(openai_facts.speech, {"model": "m", "input": "hi"}, Facts("m"), id="speech"),
        pytest.param(openai_facts.nothing, {}, Facts(), id="models"),
    ],
)
def test_other_operations_are_read(read, members, expected):
    """What is computed rather than generated is deterministic; speech never is."""
    assert expected == read(members)


@pytest.mark.parametrize(
    ("read", "expects"),
    [
        (openai_facts.chat, 1),
        (openai_facts.completions, 0),
        (openai_facts.responses, 0),
        (openai_facts.input_tokens, 0),
        (openai_facts.embeddings, 0),
        (openai_facts.moderations, 0),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_members_too_long_to_be_known_may_be_missing(read, expects):
    """Of a large body, the long members are not there; what is left is read."""

    assert Facts("m", deterministic=True, expects=expects) == read({"model": "m", "temperature": 0, "store": False})


READ = (
    openai_facts.chat,
    openai_facts.completions,
    openai_facts.responses,
    openai_facts.input_tokens,
    openai_facts.embeddings,
    openai_facts.moderations,
    openai_facts.transcription,
    openai_facts.speech,
    openai_facts.nothing,
)

NAMES = st.sampled_from([
    "model", "stream", "stream_options", "include_usage", "temperature", "seed", "store", "tools", "type", "messages",
    "content", "file", "file_id", "audio", "id", "input", "output", "environment", "execution", "background", "prompt",
    "prompt_cache_options", "web_search_options", "n", "plugins", "models", "google", "extra_body", "cached_content",
    "preset", "search_parameters", "function", "x",
])  # fmt: skip

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "0", "shell", "namespace", "nan"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@given(members=st.dictionaries(NAMES, JSON, max_size=8))
def test_reading_never_raises(members):
    """Whatever JSON object comes, there are facts about it."""
    assert all(isinstance(read(members), Facts) for read in READ)


@pytest.mark.parametrize(
    ("read", "members", "reasons"),
    [
        (
            openai_facts.responses,
            {"conversation": "c", "tools": [{"type": "web_search"}], "plugins": [{"id": "web"}], "prompt": {"id": "p"}},
            ("conversation", "prompt-template", "server-tools", "store"),
        ),
        (
            openai_facts.chat,
            {"store": True, "messages": [{"role": "user", "content": [{"type": "file", "file_id": "f"}]}]},
            ("store", "file-id"),
        ),
        (
            openai_facts.chat,
            {"model": 5, "preset": "p", "search_parameters": {}},
            ("unreadable", "prompt-template", "server-tools"),
        ),
        (
            openai_facts.input_tokens,
            {"previous_response_id": "r", "conversation": "c"},
            ("previous-response-id", "conversation"),
        ),
        (openai_facts.chat, {}, ("",)),
    ],
    ids=["responses", "chat", "unreadable", "count", "none"],
)
def test_further_reasons(read, members, reasons):
    """All that hold, each once, after the one that is told."""
    facts = read(members)

    assert reasons == (facts.bypass, *facts.further)
