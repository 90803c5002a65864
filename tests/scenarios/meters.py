"""A service that meters its calls, and routes with limits."""

from __future__ import annotations

import json

from sidecar.core.rules import CacheMode, CacheRule, Route
from tests.scenarios.answers import chat_events, chunks, completion, whole
from tests.scenarios.conftest import LAST_CHUNK, STREAM_HEAD


def limited(limits, mode=CacheMode.DETERMINISTIC):
    """Routes, the first of which takes all calls and has *limits*."""
    return (Route("limited", cache=CacheRule(mode), limits=limits),)


class Meter:
    """A service that says in its usage that a call took so many *tokens*; None: it says nothing."""

    def __init__(self, tokens):
        self.tokens = tokens

    async def __call__(self, _head, body, writer):
        told = b'"total_tokens":%d' % (self.tokens or 0)
        prompt = b'"prompt_tokens":%d' % ((self.tokens or 0) - 2)
        if json.loads(body).get("stream"):
            events = [self._tell(event, told, prompt) for event in chat_events("Box.")]
            writer.write(STREAM_HEAD + chunks([event for event in events if event]) + LAST_CHUNK)
        else:
            writer.write(whole(self._tell(completion("Box.").replace(b": ", b":"), told, prompt)))

    def _tell(self, text, told, prompt):
        if self.tokens is None:
            text = text.replace(b'"usage":{', b'"unusual":{')
        return text.replace(b'"total_tokens":5', told).replace(b'"prompt_tokens":3', prompt)
