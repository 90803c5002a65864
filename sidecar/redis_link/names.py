"""
The names of the fleet's keys in Redis, and the sealing of short texts stored there.

The rule: the namespace stands in clear, because rights are given by it (``~team-a:*``, ``&team-a:*``); nothing else in
a name can be read. Keys that belong together share a hash tag, so that a Cluster keeps them in one slot.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Protocol


class RedisNames:
    """The keys and channels of *namespace*, which is ASCII without braces."""

    __slots__ = ("_log", "_prefix", "log_meta", "log_mode", "log_purges", "news", "pods", "revisions")

    def __init__(self, namespace: str) -> None:
        self._prefix = namespace.encode("ascii") + b":"
        self._log = self._prefix + b"{log}:"
        self.log_meta = self._log + b"meta"
        self.log_purges = self._log + b"purges"
        self.log_mode = self._log + b"mode"
        self.news = self._prefix + b"news"
        self.pods = self._prefix + b"{pods}"
        self.revisions = self.pods + b":revisions"

    def __repr__(self) -> str:
        return f"<RedisNames {self._prefix!r}>"

    def entry(self, name: bytes) -> bytes:
        """The key of the sealed answer called *name*."""
        return b"%b{%b}:e" % (self._prefix, name)

    def lease(self, name: bytes) -> bytes:
        """The key of the lease on that answer, in the same slot."""
        return b"%b{%b}:l" % (self._prefix, name)

    def second(self, name: bytes) -> bytes:
        """The key of the second lease, beside a holder that is stuck, in the same slot."""
        return b"%b{%b}:s" % (self._prefix, name)

    def running(self, name: bytes) -> bytes:
        """The key of the operation that runs for the answer called *name*, in the same slot."""
        return b"%b{%b}:o" % (self._prefix, name)

    def operation(self, name: bytes) -> bytes:
        """The key of the operation called *name*."""
        return b"%b{%b}:p" % (self._prefix, name)

    def operation_name(self, id_: str) -> bytes:
        """The name of the operation *id_*, 32 characters; it does not show the id, which is a key to the result."""
        digest = blake2b(id_.encode(), digest_size=16, key=self._prefix[:64], person=b"sidecar poll")
        return digest.hexdigest().encode()

    def neighbours(self, name: bytes) -> list[bytes]:
        """The keys of one slot that belong to *name*: the answer's, its lease's and its second lease's."""
        answer = b"%b{%b}:" % (self._prefix, name)
        return [answer + b"e", answer + b"l", answer + b"s"]

    def tagged(self, digest: bytes) -> bytes:
        """The key of the answers that served calls with a tag, by its *digest*: in the slot of the log."""
        return b"%bt:%b" % (self._log, digest)

    def standing(self, member: bytes) -> bytes:
        """The key of what the process *member* says of itself, in the slot of ``pods``."""
        return b"%b:%b" % (self.pods, member)

    def quota(self, route: str) -> bytes:
        """
        The key of what the fleet's calls of *route* have taken. No secret is in the digest, so processes share one
        limit also while the secret is being replaced.
        """
        digest = blake2b(route.encode(), digest_size=16, key=self._prefix[:64], person=b"sidecar quota")
        return b"%b{%b}:q" % (self._prefix, digest.hexdigest().encode())


class Notes(Protocol):
    """Short texts sealed for Redis; equal texts have equal notes as long as the secret stays the same."""

    def seal_note(self, text: bytes) -> bytes:
        """The note of *text*."""

    def seal_notes(self, text: bytes) -> tuple[bytes, ...]:
        """The notes of *text* by each of our secrets, that of ``seal_note`` first."""

    def open_note(self, data: bytes) -> bytes | None:
        """The text of a note; None if none of our secrets made it."""
