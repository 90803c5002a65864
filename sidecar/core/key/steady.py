"""
Reads a large body while it passes, and delays every error until somebody asks for the reading.

The rule: a body arrives in the listener, where a bug of the reader would cost the call. So only ``reading`` raises.
"""

from __future__ import annotations

from sidecar.core.dialect import Endpoint
from sidecar.core.key import canonical
from sidecar.core.key.canonical import BodyObserver
from sidecar.core.model import Reading


class SteadyObserver:
    """The observer that ``canonical.observer`` makes from the same arguments; after an error it gets no more data."""

    __slots__ = ("_error", "_observer")

    def __init__(self, endpoint: Endpoint, content_type: bytes, digest_key: bytes) -> None:
        self._observer: BodyObserver | None = None
        self._error: Exception | None = None
        try:
            self._observer = canonical.observer(endpoint, content_type, digest_key)
        except Exception as error:  # noqa: BLE001  whatever it is, ``reading`` tells
            self._error = error

    def __repr__(self) -> str:
        return f"<SteadyObserver{' failed' * (self._error is not None)}>"

    def feed(self, chunk: bytes) -> None:
        """The next bytes of the body; never raises."""
        if self._observer is None:
            return
        try:
            self._observer.feed(chunk)
        except Exception as error:  # noqa: BLE001  as above
            self._observer, self._error = None, error

    def reading(self) -> Reading:
        """The reading of the whole body. Raises the error that came while the body passed."""
        if self._error is not None:
            raise self._error
        assert self._observer is not None
        return self._observer.reading()
