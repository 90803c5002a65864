"""
A sidecar whose memory can be searched, run as a process of its own: ``python searched.py FOLDER run --config FILE``.

On SIGUSR1 it looks for the text of the file FOLDER/sought, which stands there backwards, in every object that is alive,
and writes into FOLDER/found-PID the kinds of objects that hold it, one a line.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec

TEXTS = (bytes, bytearray, memoryview, str)


def holds(found: Any, sought: bytes) -> bool:
    """Whether a text of any kind holds *sought*."""
    try:
        data = found.encode("utf-8", "surrogatepass") if isinstance(found, str) else bytes(found)
    except (ValueError, MemoryError):
        return False  # a view that has been released
    return sought in data


def search(sought: bytes) -> list[str]:
    """The kinds of objects that hold *sought*, each with the kind of text in it."""
    found, seen = [], {id(sought)}
    left = [(None, each) for each in gc.get_objects()]
    while left:
        owner, each = left.pop()
        if isinstance(each, TEXTS):
            if id(each) not in seen and holds(each, sought):
                found.append(f"{type(owner).__module__}.{type(owner).__qualname__} {type(each).__name__}")
            seen.add(id(each))
            continue
        if id(each) in seen or each is left:
            continue
        seen.add(id(each))
        inner = gc.get_referents(each)
        if isinstance(each, msgspec.Struct):  # most of them are unknown to the collector
            inner = [getattr(each, name, None) for name in each.__struct_fields__]
        left += [(each, one) for one in inner]
    return found


def on_signal(*_: object) -> None:
    """Search, and write down what was found."""
    folder = Path(sys.argv[1])
    found = search((folder / "sought").read_bytes()[::-1])
    (folder / f"draft-{os.getpid()}").write_text("".join(f"{kind}\n" for kind in found))
    (folder / f"draft-{os.getpid()}").rename(folder / f"found-{os.getpid()}")


if __name__ == "__main__":
    from sidecar.cli.main import main

    signal.signal(signal.SIGUSR1, on_signal)
    sys.exit(main(sys.argv[2:]))
