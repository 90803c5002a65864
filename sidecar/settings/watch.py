"""
Whether a configuration, or a file that it names, has changed on disk.

The rule: the folder is looked at, never one inode. kubelet replaces a mounted ConfigMap by a link (``..data``), editors
write a new file and rename it, scripts write in place, and a folder may be gone for a while: all of that looks alike
here. Content counts; a file that is written again with the same content has not changed.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator
from threading import Lock

from sidecar.core.rules import AzureIdentity, Rules, StoredCredential
from sidecar.net.plain_file import open_plain
from sidecar.settings import DEFAULT_FOLDER, MAX_BYTES

FRESH_SECONDS = 2.0
"""A file that was written so recently is read again although it looks unchanged: its times have coarse grains."""

_FileState = tuple[int, int, int, int, int]


class FileWatch:
    """
    The configuration at *path* (None for the default folder) and the files that *rules* name. *wall* is seconds since
    the epoch, as files have them. ``look`` may be called from any thread; *first* is what the configuration was
    when this was made.
    """

    def __init__(self, path: str | None, wall: Callable[[], float] = time.time) -> None:  # noqa: TID251  file times
        self._place = pathlib.Path(DEFAULT_FOLDER if path is None else path)
        self._wall = wall
        self._lock = Lock()
        self._named: tuple[str, ...] = ()
        self._read: dict[str, tuple[_FileState, bytes]] = {}
        self.first = self.look()[0]

    def __repr__(self) -> str:
        return f"<FileWatch {self._place}, {len(self._named)} files named there>"

    def follow(self, rules: Rules) -> None:
        """From now on, the files that *rules* name belong to it."""
        self._named = tuple(dict.fromkeys(named_files(rules)))

    def look(self) -> tuple[bytes, dict[str, bytes]]:
        """Digests of the configuration and of each named file, as they are now."""
        with self._lock:
            files = self._configurations()
            here = {*files, *self._named}
            self._read = {name: read for name, read in self._read.items() if name in here}
            return self._digest(files), {name: self._content(name) for name in self._named}

    def named(self, rules: Rules) -> dict[str, bytes]:
        """Digests of the files that *rules* name, as they are now."""
        with self._lock:
            return {name: self._content(name) for name in named_files(rules)}

    def _configurations(self) -> list[str]:
        """The files that are, or may be, the configuration."""
        try:
            if not self._place.is_dir():
                return [str(self._place)]
            found = sorted(os.scandir(self._place), key=lambda entry: entry.name)
        except (OSError, ValueError):
            return [str(self._place)]
        return [entry.path for entry in found if entry.name.endswith((".yaml", ".yml")) and entry.name[0] != "."]

    def _digest(self, names: Iterable[str]) -> bytes:
        digest = hashlib.sha256()
        for name in names:
            digest.update(name.encode("utf-8", "surrogateescape") + b"\0" + self._content(name) + b"\0")
        return digest.digest()

    def _content(self, name: str) -> bytes:
        """A digest of a file's content; what is wrong with it, if it cannot be read."""
        try:
            status = os.stat(name)  # noqa: PTH116  of what a link leads to, for any kind of name
            stamp = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            known = self._read.get(name)
            age = self._wall() - max(status.st_mtime_ns, status.st_ctime_ns) / 1e9
            if known is not None and known[0] == stamp and not 0 <= age < FRESH_SECONDS:
                return known[1]
            with open_plain(name) as file:
                content = hashlib.sha256(file.read(MAX_BYTES + 1)).digest()
        except (OSError, ValueError) as error:
            self._read.pop(name, None)
            return type(error).__name__.encode()
        self._read[name] = stamp, content
        return content


def named_files(rules: Rules) -> Iterator[str]:
    """Every file that *rules* name: secrets, credentials, certificates, key sets, answers."""
    redis = rules.redis
    yield from filter(None, (rules.admin_token_file, rules.upstream.ca_file, rules.seal.secret_file))
    if redis is not None:
        files = (redis.username_file, redis.password_file, redis.ca_file, redis.cert_file, redis.key_file)
        yield from filter(None, files)
        if redis.credential is not None and redis.credential.token_file:
            yield redis.credential.token_file
    for service in rules.services:
        if service.tokens.jwks_file:
            yield service.tokens.jwks_file
        for region in service.regions:
            match region.credential:
                case StoredCredential(file=file):
                    yield file
                case AzureIdentity(token_file=file) if file:
                    yield file
                case _:
                    pass
    for route in rules.routes:
        yield from (rule.value for rule in route.fallback if rule.kind == "answer_file")
