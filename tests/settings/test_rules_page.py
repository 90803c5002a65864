"""``docs/rules.md`` names every key that waits for a restart."""

from __future__ import annotations

from pathlib import Path

from sidecar.settings.restart import RESTART

PAGE = Path(__file__).parents[2] / "docs" / "rules.md"


def test_keys_that_wait():
    """Those of the code, in its order, and none besides."""
    _, _, rest = PAGE.read_text(encoding="utf-8").partition("<!-- table: restart -->\n")

    assert ", ".join(f"`{pattern}`" for pattern in RESTART) == " ".join(rest.partition("\n<!-- end -->")[0].split())
