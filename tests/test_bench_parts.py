"""The parts that ``tests.bench.otherwise`` replaces are those that the program uses."""

import pytest

from tests.bench.otherwise import PARTS, replace


@pytest.mark.parametrize("part", PARTS)
def test_parts(part, monkeypatch):
    """Each is looked up where it is replaced; otherwise a row would compare the sidecar with itself."""
    owner, name, other = PARTS[part]
    monkeypatch.setattr(owner, name, getattr(owner, name))
    replace(part)

    assert other is getattr(owner, name)


def test_a_part_that_is_gone(monkeypatch):
    """It ends the run."""
    owner, name, _ = PARTS["no-body-memo"]
    monkeypatch.delattr(owner, name)

    with pytest.raises(AttributeError):
        replace("no-body-memo")
