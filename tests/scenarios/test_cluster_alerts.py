"""
What a real Prometheus says, by the alerts of ``k8s/``, while the webhook is away from a real API server.

The rule: expressions are those that platform teams apply. Only their ``for`` is left out, which is minutes.
"""

from __future__ import annotations

from contextlib import suppress

from tests.cluster.client import RefusedByServer
from tests.cluster.installation import containers, is_injected, pod, pods, until
from tests.cluster.prometheus import Prometheus
from tests.redis_servers import free_port

MISSED, DOWN, BLOCKS = "AiSidecarPodsMissed", "AiSidecarWebhookDown", "AiSidecarWebhookBlocksPods"


def webhook_at(port):
    """The webhook's metrics, with the labels that a PodMonitor gives them."""
    return {
        "job_name": "ai-sidecar/ai-sidecar-webhook",
        "static_configs": [{"targets": [f"127.0.0.1:{port}"], "labels": {"namespace": "ai-sidecar"}}],
    }


async def test_missed_pods(install, tmp_path):
    """
    While no replica runs, pods start without a sidecar and one alert says that the webhook is away. When it is back,
    another says how many pods it has missed, and where.
    """
    installed = await install()
    port = free_port()
    await installed.start(f"--health-port={port}")
    namespace = await installed.namespace("shop", "enabled")
    before = await installed.api.create(pods(namespace), pod("before"))
    async with Prometheus(tmp_path / "prometheus", [webhook_at(port)]) as prometheus:

        async def is_back():
            return DOWN not in await prometheus.firing()

        await until(is_back)
        calm = MISSED not in await prometheus.firing(namespace=namespace)
        await installed.stop()
        missed = [await installed.api.create(pods(namespace), pod(f"web-{number}")) for number in range(3)]
        await prometheus.until_firing(DOWN)
        await installed.start(f"--health-port={port}")
        alert = await prometheus.until_firing(MISSED, namespace=namespace)
        await until(is_back)

    assert calm
    assert is_injected(before)
    assert [["app"]] * 3 == [list(containers(each)) for each in missed]
    assert (namespace, 3) == (alert["labels"]["namespace"], float(alert["value"]))


async def test_blocked_pods(install, api_server, tmp_path):
    """With the component ``fail-closed``, an alert says that no pod can be created, by the API server's own metrics."""
    installed = await install("fail-closed")
    await installed.start()
    namespace = await installed.namespace("shop", "enabled")
    await installed.stop()
    async with Prometheus(tmp_path / "prometheus", [api_server.scraped()]) as prometheus:

        async def is_said():
            with suppress(RefusedByServer):
                await installed.api.create(pods(namespace), pod("web"))
            return BLOCKS in await prometheus.firing()

        await until(is_said)
        alert = (await prometheus.firing())[BLOCKS]

    assert "namespaces.ai-sidecar.dev" == alert["labels"]["name"]
    assert [] == (await installed.api.get(pods(namespace)))["items"]
