"""A mounted folder, changed as kubelet changes it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

FILE = "sidecar.yaml"


def mount(folder: Path, text: str) -> None:
    """
    The ConfigMap at *folder* holds *text* from now on, in ``FILE``. Each version has a folder of its own; the link
    ``..data`` leads to it and is replaced by a rename; the link to the file leads through ``..data`` and never changes
    (``pkg/volume/util/atomic_writer.go``).
    """
    folder.mkdir(parents=True, exist_ok=True)
    version = folder / f"..2026_11_30_{os.urandom(8).hex()}"
    version.mkdir()
    (version / FILE).write_text(text)
    data, fresh = folder / "..data", folder / "..data_tmp"
    before = data.readlink() if data.is_symlink() else None
    fresh.symlink_to(version.name)
    fresh.replace(data)
    if not (folder / FILE).is_symlink():
        (folder / FILE).symlink_to(f"..data/{FILE}")
    if before is not None:
        shutil.rmtree(folder / before)
