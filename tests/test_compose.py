"""``docker-compose.yaml``: nobody but this machine reaches it, and what it mounts is right."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar.core.rules import Rules
from sidecar.identity.secret_file import SecretFile
from sidecar.settings import load

ROOT = Path(__file__).parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def rules() -> Rules:
    """What ``sidecar check`` reads of the folder that is mounted."""
    [mounted] = [each.split(":")[0] for each in SERVICES["sidecar"]["volumes"] if each.endswith(":/etc/sidecar:ro")]
    return load(str(ROOT / mounted), environ={}, overrides={}, strict=True)


def test_the_configuration():
    """It has neither problem nor warning, and goes to the Redis beside it, with what the keys' container makes."""
    found = rules()
    made = set(re.findall(r"> (\S+)", SERVICES["keys"]["command"][0]))

    assert ((), "0.0.0.0") == (found.warnings, found.listen.host)
    assert found.redis is not None
    assert "redis://redis:6379" == found.redis.url
    assert {f"/keys/{name}" for name in made} == {found.redis.password_file, found.seal.secret_file}
    assert found.limits.drain_seconds + 5 <= int(SERVICES["sidecar"]["stop_grace_period"].removesuffix("s"))


def test_ports():
    """Calls and metrics come from this machine; Redis and the operator's port come from nowhere."""
    found = rules()

    assert [f"127.0.0.1:{port}:{port}" for port in (found.listen.port, found.health.port)] == SERVICES["sidecar"][
        "ports"
    ]
    assert [] == [name for name, service in SERVICES.items() if "ports" in service and name != "sidecar"]
    assert "127.0.0.1" == found.admin.host


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_rights(service):
    """Each container has a root that it cannot write, and no right that it does not need."""
    assert service["read_only"]
    assert ["ALL"] == service["cap_drop"]
    assert ["no-new-privileges:true"] == service["security_opt"]


def test_keys(tmp_path):
    """They are usable, and made once."""
    [script] = SERVICES["keys"]["command"]
    script = script.replace("$$", "$").replace("cd /keys", f"cd {tmp_path}")
    contents = []
    for _ in range(2):
        subprocess.run(["sh", "-euc", script], check=True)
        contents.append({path.name: path.read_text() for path in tmp_path.iterdir()})

    assert contents[0] == contents[1]
    assert re.fullmatch("[0-9a-f]{48}", contents[0]["redis-password"])
    assert SecretFile(str(tmp_path / "cache.key"), lambda: 0.0, pytest.fail).keyring() is not None
