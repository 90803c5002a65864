"""
The sizes of the memory tier that contradict each other.

The rule: a contradiction within the file is a problem. Between the file and a variable it is a caution, and the smaller
size holds: who started the pod bounds its memory, and who wrote the ConfigMap does not know that bound.
"""

from __future__ import annotations

from collections.abc import Iterator

from sidecar.settings.problems import Path
from sidecar.settings.quantities import as_size
from sidecar.settings.reader import ParsedSettings

_PATH: Path = ("cache", "memory")


def oversized(reading: ParsedSettings) -> str:
    """The size of the tier, if the largest entry is said to be larger; else ``""``."""
    said = reading.values.get("cache", {}).get("memory", {})
    if not said.keys() >= {"max_bytes", "max_entry_bytes"} or said["max_entry_bytes"] <= said["max_bytes"]:
        return ""
    return as_size(said["max_bytes"])


def is_file(reading: ParsedSettings, key: str) -> bool:
    """Whether the file says the size *key*, and not a variable or an option."""
    return bool(reading.places[*_PATH, key].line)


def clamped(reading: ParsedSettings) -> Iterator[tuple[Path, str]]:
    """The caution, if there is reason for one."""
    if (whole := oversized(reading)) and is_file(reading, "max_bytes") != is_file(reading, "max_entry_bytes"):
        place = reading.places[*_PATH, "max_bytes"]
        yield (*_PATH, "max_entry_bytes"), f"is more than max_bytes ({place}); {whole} is used"
