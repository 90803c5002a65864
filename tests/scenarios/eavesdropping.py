"""Somebody who reads along with a Redis, for as long as a story lasts."""

from __future__ import annotations

import re
import socket
import threading
from contextlib import suppress

from tests.redis_servers import RedisServer

TOLD = re.compile(
    rb"in the box|in box \d|a box\.|bearer |chat\.completion|\\\"role\\\"|gpt-4o|claude-|x-team"
    rb"|(?-i:sk-(?:ant-|of-|one|two|first|second|other|story|secret|region|tenant-|thief|made-up|canary))",
    re.IGNORECASE,
)
"""What the stories' prompts, answers, credentials and names have in common.

The keys are named, for megabytes of noise hold every spelling of three free letters now and then.
"""

_END = b"the story has ended"


class Eavesdropper:
    """Hears every command that *server* executes (``MONITOR``), also after it was killed and started again."""

    def __init__(self, server: RedisServer) -> None:
        self.heard = b""
        self._server = server
        self._leaving = threading.Event()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        assert self._listening.wait(10), "the server lets itself be monitored"

    def leave(self) -> bytes:
        """Hear the last command, and tell what was heard."""
        self._leaving.set()
        with suppress(OSError, RuntimeError):  # it was killed, and is to stay so
            self._server.resume()
            self._server.call("ECHO", _END)
        self._thread.join(10)
        assert not self._thread.is_alive(), "the last command is heard"
        return self.heard

    def _listen(self) -> None:
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self._server.port), 1.0) as connection:
                connection.sendall(b"MONITOR\r\n")
                self._hear(connection)
            if self._leaving.wait(0.01):
                return

    def _hear(self, connection: socket.socket) -> None:
        while True:
            try:
                data = connection.recv(1 << 20)
            except TimeoutError:
                if self._leaving.is_set():
                    return
                continue
            if not data:
                return
            self._listening.set()
            self.heard += data
            if self._leaving.is_set() and _END in self.heard[-4096:]:
                return
