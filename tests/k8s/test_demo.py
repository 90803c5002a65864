"""The parts of ``k8s/`` that run: the Redis for trying out, and the application and the provider of the demo."""

from __future__ import annotations

import subprocess
import sys

import redis

from tests.k8s.builds import K8S, manifests, the
from tests.redis_servers import eventually, executable, free_port

DEMO = K8S / "overlays" / "dev" / "demo"


def test_redis_asks_for_the_password_of_the_secret(tmp_path):
    """The container's own command starts a Redis that keeps nothing and lets nobody in without the password."""
    [spec] = [
        each["spec"]["template"]["spec"]["containers"][0]
        for each in manifests("components/redis", "Deployment")
        if each["metadata"]["name"] == "redis"
    ]
    config = the([each for each in manifests("components/redis", "ConfigMap") if "redis.conf" in each["data"]],
                 "ConfigMap", spec_volume("redis"))  # fmt: skip
    (tmp_path / "redis.conf").write_text(config["data"]["redis.conf"].replace("dir /tmp", f"dir {tmp_path}"))
    (tmp_path / "redis-password").write_text("opens sesame#1\n")
    port = free_port()
    [script] = spec["args"]
    for there, here in (
        ("/etc/redis", str(tmp_path)),
        ("/etc/sidecar-secret", str(tmp_path)),
        ("redis-server", f"{executable()} --port {port}"),
    ):
        assert there in script
        script = script.replace(there, here)
    script = script.replace(f"--port {port} {tmp_path}/redis.conf", f"{tmp_path}/redis.conf --port {port}")
    child = subprocess.Popen([*spec["command"], script], stdout=subprocess.DEVNULL, env={"PATH": "/usr/bin:/bin"})
    try:
        with redis.Redis(port=port, password="opens sesame#1") as client:
            eventually(lambda: answers(client), "Redis answers")

            assert {"maxmemory-policy": "allkeys-lru"} == client.config_get("maxmemory-policy")
            assert {"save": ""} == client.config_get("save")
        with redis.Redis(port=port) as stranger:
            assert not answers(stranger)
        assert "sesame" not in cmdline(child.pid)
    finally:
        child.terminate()
        assert child.wait(20) == 0, "SIGTERM reaches Redis, not a shell before it"


def spec_volume(name: str) -> str:
    """The name of the ConfigMap that the Deployment *name* mounts: kustomize put a hash behind it."""
    [deployment] = [each for each in manifests("components/redis", "Deployment") if each["metadata"]["name"] == name]
    [found] = [
        each["configMap"]["name"] for each in deployment["spec"]["template"]["spec"]["volumes"] if "configMap" in each
    ]
    return str(found)


def answers(client: redis.Redis) -> bool:
    """Whether Redis lets *client* in."""
    try:
        return bool(client.ping())
    except (redis.ConnectionError, redis.AuthenticationError):
        return False


def cmdline(pid: int) -> str:
    """The command line of a process."""
    with open(f"/proc/{pid}/cmdline", encoding="utf-8") as file:  # noqa: PTH123  no file of a folder
        return file.read()


def test_the_demo_asks_and_is_answered():
    """The application's calls reach the stand-in provider; it says where no sidecar is on the way."""
    command = [sys.executable, str(DEMO / "provider.py"), "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as provider:
        assert provider.stdout is not None
        port = int(provider.stdout.readline().rsplit(" ", 1)[1])
        told = asked({"OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1"}, 1)
        provider.terminate()
        assert provider.wait(20) == 0

    assert "no sidecar on the way" in told
    assert "failed" not in told
    assert "not injected" in asked({}, 1)
    assert "failed" in asked({"OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1"}, 1)


def asked(environment: dict[str, str], rounds: int) -> str:
    """What the demo's application prints of so many *rounds*."""
    command = [sys.executable, str(DEMO / "ask.py"), str(rounds)]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
