"""Where the tests' Redis servers are: they are named by their addresses."""

from __future__ import annotations


async def as_it_is(host: str) -> tuple[str, ...]:
    """The address that *host* is. Names are the resolver's, and that has tests of its own."""
    return ("127.0.0.1" if host == "localhost" else host,)
