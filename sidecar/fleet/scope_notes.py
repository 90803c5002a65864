"""
Scopes of purges as they stand in Redis.

The rule: a note names its namespace, so that nobody can copy it to another namespace with the same secret. A note that
none of our secrets made says nothing.
"""

from __future__ import annotations

from sidecar.core.cache.purges import ALL, Scope, read_scope, write_scope
from sidecar.redis_link.names import Notes, RedisNames


class ScopeNotes:
    """
    Seals and opens the scopes of the fleet of *names*. Equal scopes have equal notes as long as the secret stays the
    same.
    """

    def __init__(self, names: RedisNames, notes: Notes) -> None:
        self._before = b"purge " + names.news.removesuffix(b"news") + b" "
        self._notes = notes

    def __repr__(self) -> str:
        return f"<ScopeNotes {self._before!r}>"

    def seal(self, scope: Scope) -> bytes:
        """
        The note of *scope*. No name is too long for a note; if one were, the note would mean everything: never less
        than *scope*.
        """
        try:
            return self._notes.seal_note(self._before + write_scope(scope))
        except ValueError:
            return self._notes.seal_note(self._before + write_scope(ALL))

    def seal_by_each(self, scope: Scope) -> tuple[bytes, ...]:
        """The notes of *scope* by each of our secrets; a short one."""
        return self._notes.seal_notes(self._before + write_scope(scope))

    def open(self, note: bytes) -> Scope | None:
        """The scope of *note*; None where we cannot tell, because its secret is gone, or newer than ours."""
        text = self._notes.open_note(note)
        if text is None or not text.startswith(self._before):
            return None
        return read_scope(text.removeprefix(self._before))
