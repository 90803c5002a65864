"""
A login that holds for a while, and where the next one comes from.

The rule: who connects knows nothing of tokens; this is all that it sees of them. The password is never shown. Nothing
of Redis' library is needed here.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct


class Login(Struct, frozen=True, gc=False):
    """A *user* and the *password* that holds until *until*, monotonic seconds."""

    user: str
    password: str
    until: float

    def __repr__(self) -> str:
        return f"<Login of {self.user} until {self.until:.1f}>"


class LoginSource(Protocol):
    """One login after another."""

    @property
    def fault(self) -> str:
        """Why there is no login, or no newer one; ``""`` if nothing is wrong."""

    def current(self) -> Login | None:
        """The login that holds now, at once; None if there is none. If it is missing or due, the next is asked for."""

    async def newer(self, known: Login | None) -> Login:
        """The first login that is not *known*, asked for when that is due. Waits as long as it takes."""

    def left(self, login: Login) -> float:
        """Seconds until *login* ends; 0.0 if it has ended."""

    def refused(self, login: Login) -> None:
        """*login* was refused although it should hold: ask for another, but not too often."""
