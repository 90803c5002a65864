"""Files that somebody else rotates, and a clock that passes when told to."""

from __future__ import annotations

import os
from pathlib import Path


class Clock:
    """Monotonic seconds."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Volume:
    """A folder as kubelet mounts a Secret: the file is a link through ``..data``, which is swapped as a whole."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.version = 0
        self.path = folder / "key"

    def rotate(self, *lines: bytes) -> None:
        self.version += 1
        data = self.folder / f"..v{self.version}"
        data.mkdir()
        (data / "key").write_bytes(b"\n".join(lines))
        link = self.folder / "..next"
        link.symlink_to(data.name)
        os.replace(link, self.folder / "..data")  # noqa: PTH105 - the swap as the kubelet does it
        if not self.path.is_symlink():
            self.path.symlink_to("..data/key")
