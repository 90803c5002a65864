"""What answers where no region does: other models and written answers, in their order, and what they say they are."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest
from msgspec import structs

from sidecar.core.answer.answer_file import LARGEST
from sidecar.core.http.headers import fields_of
from sidecar.core.model import View
from sidecar.core.rules import FallbackRule
from sidecar.dialects import DIALECTS
from sidecar.errors import Cause, ClientGone
from sidecar.upstream.fallback import RECHECK_SECONDS, Fallback, refuses
from tests.scripted import CALLERS_KEY, CONTENT, DONE, Lab, fails, hangs, ok, region, status, stream

OPENAI = DIALECTS["openai"]
CHAT = OPENAI.locate(b"POST", "/v1/chat/completions")
EMBEDDINGS = OPENAI.locate(b"POST", "/v1/embeddings")
NONE = fails(Cause.CONNECT, sent=False)
BUSY = json.dumps({
    "id": "busy", "object": "chat.completion", "created": 1, "model": "none",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Later."}, "finish_reason": "stop"}],
}).encode()  # fmt: skip
EVENT_ERROR = b'data: {"error":{"message":"x","type":"server_error"}}\n\n'


class Desk:
    """A standby for the calls of one route."""

    def __init__(self, *fallbacks, script=None, **more):
        self.lab = Lab(script or {"a": [NONE]}, fallback=tuple(fallbacks), **more)
        self.told = []
        self.fallback = Fallback(self.lab.dispatch, self.lab.clock, self.told.append)

    async def find(self, *pairs, endpoint=CHAT, view=None, **members):
        self.outgoing = self.lab.outgoing(*pairs, **members)
        return await self.fallback.answer(self.outgoing, endpoint, view or View())

    @property
    def models(self):
        """The models that were asked for, by body."""
        return [json.loads(body)["model"] for body in self.lab.client.bodies]


def model(name):
    return FallbackRule("model", name)


def file_of(tmp_path, body=BUSY, name="busy.json"):
    path = tmp_path / name
    path.write_bytes(body)
    return FallbackRule("answer_file", str(path))


async def read(found):
    body = b""
    while chunk := await found.sent.answer.read():
        body += chunk
    found.sent.answer.close()
    return body


@pytest.mark.parametrize(
    ("value", "expected"), [(b"none", True), (b" None ", True), (b"stale", False), (b"", False), (None, False)]
)
async def test_refuses(value, expected):
    """Only who says so in so many words takes no stand-in; and nobody is asked for it then."""
    pairs = () if value is None else ((b"x-sidecar-fallback", value),)
    desk = Desk(model("small"), script={"a": [ok()]})

    assert expected == refuses(fields_of(pairs))

    found = await desk.find(*pairs)

    assert (expected, ["small"] * (not expected)) == (found is None, desk.models)


async def test_model_in_the_body():
    """Another model is asked the same; its answer carries its name, and the call is one for its reason."""
    desk = Desk(model("small"), script={"a": [ok(b"{}")]})
    found = await desk.find()

    assert ("small", "a", ["small"]) == (found.model, found.sent.region, desk.models)
    assert [("a", "fallback")] == desk.outgoing.attempt_logs
    assert b"{}" == await read(found)
    assert desk.lab.regions.budget("ai").calls == 0
    assert all(answer.closed for answer in desk.lab.client.answers)


async def test_model_in_the_path():
    """Where the path names the deployment it is replaced there, and the body stays."""
    desk = Desk(model("small one"), script={"a": [ok()]}, dialect="azure-openai")
    found = await desk.find(path=b"/openai/deployments/gpt-4o/chat/completions?api-version=1")

    assert "small one" == found.model
    assert [b"/openai/deployments/small%20one/chat/completions?api-version=1"] == [
        call["target"] for call in desk.lab.client.calls
    ]
    assert ["gpt-4o"] == desk.models


@pytest.mark.parametrize("kind", ["path", "body"])
async def test_model_that_a_region_calls_otherwise(kind):
    """A region's own name for the stand-in is used as for any model."""
    script = {"a": [ok()]}
    desk = Desk(model("small"), script=script, dialect="azure-openai")
    desk.lab.service = replace(desk.lab.service, regions=(region("a", deployments={"small": "s-1"}),))
    path = b"/openai/deployments/gpt-4o/chat/completions" if kind == "path" else b"/openai/v1/chat/completions"
    found = await desk.find(path=path)

    assert "small" == found.model
    assert (["s-1"] if kind == "body" else ["gpt-4o"]) == desk.models
    assert (path.replace(b"gpt-4o", b"s-1")) == desk.lab.client.calls[0]["target"]


@pytest.mark.parametrize(
    ("fallback", "members", "endpoint"),
    [
        pytest.param("gpt-4o", {}, CHAT, id="the model itself"),
        pytest.param("small", {"body": b"{}"}, CHAT, id="no model in the body"),
        pytest.param("small", {"body": b'{"model":"a","model":"b"}'}, CHAT, id="two models"),
        pytest.param("small", {}, None, id="an operation that we don't know"),
        pytest.param("small", {"path": b"/v1/unknown"}, CHAT, id="nor where it goes"),
    ],
)
async def test_model_that_cannot_be_asked(fallback, members, endpoint):
    """Where another model's name cannot be put, nobody is asked."""
    desk = Desk(model(fallback), script={"a": [ok()]})

    assert await desk.find(endpoint=endpoint, **members) is None
    assert [] == desk.lab.asked


@pytest.mark.parametrize(
    "step",
    [NONE, status(500), status(429), status(404), stream(EVENT_ERROR), ok(b"{", fails(Cause.TRUNCATED)())],
    ids=["connect", "500", "429", "404", "error event", "broken"],
)
async def test_next_one(step, tmp_path):
    """One that fails is passed over for the next, and closed; none is asked twice."""
    desk = Desk(
        FallbackRule("stale"), model("small"), model("tiny"), file_of(tmp_path), model("never"), script={"a": [step]}
    )
    found = await desk.find((b"x-stainless-retry-count", b"0"))

    assert (["small", "tiny"], "", "") == (desk.models, found.model, found.sent.region)
    assert BUSY == await read(found)
    assert all(answer.closed for answer in desk.lab.client.answers)


@pytest.mark.parametrize("fallbacks", [(), (FallbackRule("stale"),), (model("small"), model("tiny"))], ids=len)
async def test_none(fallbacks):
    """Where none answers there is none."""
    desk = Desk(*fallbacks)

    assert await desk.find((b"x-stainless-retry-count", b"0")) is None
    assert len(fallbacks) // 2 * 2 == len(desk.lab.asked)


async def test_credential_stays_home():
    """The call for a stand-in goes where the call itself might have gone, and nowhere else."""
    desk = Desk(model("small"), script={"a": [NONE], "b": [ok()]})
    desk.lab.service = replace(desk.lab.service, regions=(region("a"), region("b", credential_domain="two")))

    assert await desk.find((b"Authorization", CALLERS_KEY)) is None
    assert {"a"} == set(desk.lab.asked)


async def test_tries_add_up():
    """What was tried before stays in the record of the call."""
    desk = Desk(model("small"), script={"a": [NONE, ok()]})
    outgoing = desk.lab.outgoing((b"x-stainless-retry-count", b"0"))
    with pytest.raises(Exception, match="connect"):
        await desk.lab.dispatch.send(outgoing)
    found = await desk.fallback.answer(outgoing, CHAT, View())
    found.sent.answer.close()

    assert [("a", ""), ("a", "fallback")] == outgoing.attempt_logs


async def test_not_told_as_sent():
    """Whoever hears when the call itself is on its way hears nothing of a stand-in's."""
    heard = []
    desk = Desk(model("small"), script={"a": [ok()]})
    found = await desk.find(on_sent=lambda: heard.append("sent"))
    desk.lab.client.calls[0]["on_sent"]()
    found.sent.answer.close()

    assert [] == heard


async def test_cancelled():
    """Who leaves while a stand-in is asked takes it along."""
    desk = Desk(model("small"), model("tiny"), script={"a": [hangs()]})
    task = asyncio.create_task(desk.find())
    for _ in range(10):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert ["small"] == desk.models
    assert desk.lab.is_clean()


# Written answers


async def test_file_whole(tmp_path):
    """A file is answered as it stands."""
    found = await Desk(file_of(tmp_path)).find()
    answer = found.sent.answer

    assert (200, "", len(BUSY)) == (answer.status, found.model, answer.length)
    assert ((b"content-type", b"application/json"),) == answer.pairs
    assert fields_of(answer.pairs) == answer.fields
    assert BUSY == await read(found)


@pytest.mark.parametrize("usage", [False, True])
async def test_file_streamed(tmp_path, usage):
    """Who wants a stream gets it as one, though without the token counts that the file doesn't have."""
    found = await Desk(file_of(tmp_path)).find(view=View(stream=True, usage=usage))
    answer = found.sent.answer
    body = await answer.read()

    assert b"text/event-stream; charset=utf-8" == fields_of(answer.pairs)[b"content-type"]
    assert (b'"Later."' in body, True, len(body)) == (True, body.endswith(DONE), answer.length)
    assert b"" == await answer.read()


@pytest.mark.parametrize("body", [b'"busy"', b'{"a":1}'], ids=["text", "another"])
async def test_file_that_cannot_be_streamed(tmp_path, body):
    """One that is no whole answer of the API is told of, and passed over."""
    desk = Desk(file_of(tmp_path, body))

    assert await desk.find(view=View(stream=True)) is None
    assert ["cannot be given as a stream; it has to be a whole answer of this API"] == [
        line.partition(": ")[2] for line in desk.told
    ]


async def test_file_for_what_has_no_stream(tmp_path):
    """An operation that doesn't stream is answered whole, whatever is asked."""
    found = await Desk(file_of(tmp_path, b"{}")).find(endpoint=EMBEDDINGS, view=View(stream=True))

    assert b"{}" == await read(found)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (None, "No such file or directory"),
        (b"", "is empty"),
        (bytes(LARGEST + 1), "is larger than 1 MiB"),
        (b"busy", "is not JSON"),
        (CONTENT + DONE, "is not JSON"),
    ],
    ids=["missing", "empty", "too large", "text", "a stream"],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_file_unusable(tmp_path, body, expected, stream):
    """Why a file cannot be used is told once a look, with the remedy, and the next one is taken."""
    first = FallbackRule("answer_file", str(tmp_path / "none")) if body is None else file_of(tmp_path, body, "first")
    desk = Desk(first, file_of(tmp_path))
    for _ in range(2):
        found = await desk.find(view=View(stream=stream))

        assert b"Later." in await read(found)

    assert [f"{first.value}: {expected}; write a whole answer of the service there, as JSON"] == desk.told


async def test_file_in_a_folders_place(tmp_path):
    """A folder is no answer either."""
    desk = Desk(FallbackRule("answer_file", str(tmp_path)))

    assert await desk.find() is None
    assert [f"{tmp_path}: Is a directory; write a whole answer of the service there, as JSON"] == desk.told


async def test_largest_file(tmp_path):
    """A MiB is a file's most."""
    found = await Desk(file_of(tmp_path, b"{" + b" " * (LARGEST - 2) + b"}")).find()

    assert LARGEST == len(await read(found))


async def test_file_is_read_again(tmp_path):
    """A file that was changed, or has come, is seen a second later; each call has the bytes from their start."""
    fallback = file_of(tmp_path)
    desk = Desk(fallback)
    first = await desk.find()
    file_of(tmp_path, b"{}")
    second = await desk.find()

    assert (BUSY, BUSY) == (await read(first), await read(second))

    desk.lab.clock.now += RECHECK_SECONDS

    assert b"{}" == await read(await desk.find())

    (tmp_path / "busy.json").unlink()
    desk.lab.clock.now += RECHECK_SECONDS

    assert await desk.find() is None

    file_of(tmp_path)
    desk.lab.clock.now += RECHECK_SECONDS

    assert BUSY == await read(await desk.find())
    assert "<Fallback <Memo 1 values, weight 0>>" == repr(desk.fallback)


async def test_file_closed_unread(tmp_path):
    """A written answer may be closed at any time."""
    found = await Desk(file_of(tmp_path)).find()
    found.sent.answer.close()
    found.sent.answer.close()

    assert b"" == await found.sent.answer.read()


async def test_what_the_caller_ends():
    """A caller that is gone needs no stand-in."""
    desk = Desk(model("small"), model("tiny"), script={"a": [ClientGone]})
    with pytest.raises(ClientGone):
        await desk.find()

    assert ["small"] == desk.models


async def test_body_that_is_not_in_memory():
    """Another model's name cannot be put into a body that isn't in hand."""
    desk = Desk(model("small"), script={"a": [ok()]})
    outgoing = structs.replace(desk.lab.outgoing(), body=desk)

    assert await desk.fallback.answer(outgoing, CHAT, View()) is None
