"""
The webhook before a real API server (Kubernetes 1.20, so sidecars are classic): who is injected, while certificates
change, and while no webhook is there.

The rule: manifests are those of ``k8s/``, requests pass TLS and RBAC, and kubectl is the real one.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cluster.client import RefusedByServer
from tests.cluster.installation import WEBHOOK, containers, image, is_injected, pod, pods, until
from tests.cluster.manifests import K8S, only, rights, templates
from tests.cluster.mesh import Mesh

ENDPOINT = {"name": "AZURE_OPENAI_ENDPOINT", "value": "http://127.0.0.1:7400/azure/shop"}

STATUS, REASON = "ai-sidecar.dev/status", "ai-sidecar.dev/not-injected"

GOLDEN = Path(__file__).parents[1] / "inject" / "golden"

OVERLAYS = sorted(path.name for path in (K8S / "overlays").glob("*"))

CANARY = f"{WEBHOOK}-canary"

CREATES = 1000
ROTATIONS = 2
AT_ONCE = 8

SHORT_LIFE = "--certificate-life=15s"


def config_map(name: str, text: str) -> str:
    """A ConfigMap that the webhook is asked about."""
    metadata = {"name": name, "labels": {"ai-sidecar.dev/config": "true"}}
    return json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"sidecar.yaml": text}})


async def test_who_is_injected(install):
    """The labels of namespace and pod decide; a Job's pod gets none before 1.29, and the reason why."""
    installed = await install()
    await installed.start()
    labelled, plain = await installed.namespace("shop", "enabled"), await installed.namespace("plain")
    opted_out = await installed.namespace("bank", "disabled")

    async def created(namespace, *said, **more):
        return await installed.api.create(pods(namespace), pod(*said, **more))

    web = await created(labelled, "web", AZURE_OPENAI_ENDPOINT="https://shop.openai.azure.com")
    job = await created(labelled, "nightly", owner="Job")

    assert {"app", "ai-sidecar"} == containers(web).keys()
    assert image(WEBHOOK) == containers(web)["ai-sidecar"]["image"]
    assert ENDPOINT in containers(web)["app"]["env"]
    assert STATUS in web["metadata"]["annotations"]
    assert web == await installed.api.get(f"{pods(labelled)}/web")
    assert {"app"} == containers(job).keys()
    assert "1.29" in job["metadata"]["annotations"][REASON]
    assert not is_injected(await created(labelled, "off", "disabled"))
    assert not is_injected(await created(plain, "web"))
    assert is_injected(await created(plain, "on", "enabled"))
    assert not is_injected(await created(opted_out, "on", "enabled"))
    assert any("not injected" in said for said in installed.api.warnings)


async def test_what_was_valid_stays_valid(install):
    """Every golden manifest's pod that the API server takes, it takes with the sidecar."""
    installed = await install()
    await installed.start()
    labelled, plain = await installed.namespace("shop", "enabled"), await installed.namespace("plain")
    found = {path.stem: list(templates(path)) for path in GOLDEN.glob("*.yaml")}
    taken, refused = 0, []
    for name, each in ((name, each) for name, those in found.items() for each in those):
        try:
            await installed.api.create(pods(plain), each, dryRun="All")
        except RefusedByServer:  # such as a native sidecar's probes, which came later
            continue
        taken += 1
        try:
            await installed.api.create(pods(labelled), each, dryRun="All")
        except RefusedByServer as error:
            refused.append((name, str(error)))

    assert [] == refused
    assert taken > 20


async def test_another_webhook(install, tmp_path):
    """The API server asks again after a webhook that comes later: what that has added is injected as well, once."""
    installed = await install()
    await installed.start()
    namespace = await installed.namespace("shop", "enabled")
    await installed.api.patch(f"/api/v1/namespaces/{namespace}", {"metadata": {"labels": {"mesh": namespace}}})
    registrations = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
    (tmp_path / "mesh").mkdir()
    async with Mesh(tmp_path / "mesh") as mesh:
        await installed.api.create(registrations, mesh.registration("zz-mesh", namespace))

        async def is_called():
            await installed.api.create(pods(namespace), pod("probe"), dryRun="All")
            return mesh.calls

        await until(is_called)
        made = await installed.api.create(pods(namespace), pod("web"))
        await installed.api.delete(f"{registrations}/zz-mesh")
    added = containers(made)["mesh-proxy"]

    assert ["ai-sidecar", "app", "mesh-proxy"] == sorted(each["name"] for each in made["spec"]["containers"])
    assert {"name": "AZURE_OPENAI_ENDPOINT", "value": "http://127.0.0.1:7400/azure/mesh"} in added["env"]


async def test_a_quota(install):
    """A namespace's quota for ``limits.cpu`` takes the pod whose annotation gives the sidecar such a limit."""
    installed = await install()
    await installed.start()
    namespace = await installed.namespace("shop", "enabled")
    path = f"/api/v1/namespaces/{namespace}/resourcequotas"
    hard = {"limits.cpu": "2"}
    await installed.api.create(path, {"metadata": {"name": "cpu"}, "spec": {"hard": hard}})
    await installed.api.patch(f"{path}/cpu/status", {"status": {"hard": hard, "used": {"limits.cpu": "0"}}})
    [annotated] = templates(GOLDEN / "quota.yaml")
    bare = {**annotated, "metadata": {**annotated["metadata"], "annotations": {}}}
    made = await installed.api.create(pods(namespace), annotated)
    with pytest.raises(RefusedByServer, match=r"must specify limits.cpu"):
        await installed.api.create(pods(namespace), bare)

    assert "250m" == containers(made)["ai-sidecar"]["resources"]["limits"]["cpu"]


async def test_a_dry_run_leaves_nothing(install):
    """A dry run shows the injected pod, also by kubectl, and stores none."""
    installed = await install()
    await installed.start()
    namespace = await installed.namespace("shop", "enabled")
    shown = await installed.api.create(pods(namespace), pod("web"), dryRun="All")
    text = json.dumps({"apiVersion": "v1", "kind": "Pod", **pod("web")})
    printed = await installed.kubectl(
        "create", "-n", namespace, "--dry-run=server", "-o", "json", "-f", "-", stdin=text
    )

    assert is_injected(shown)
    assert is_injected(json.loads(printed))
    assert [] == (await installed.api.get(pods(namespace)))["items"]


async def test_certificates_change_under_load(install, api_server):
    """Two replicas replace their certificate again and again while pods are created, and every one is injected."""
    installed = await install()
    await installed.start(SHORT_LIFE, count=2)
    namespace = await installed.namespace("shop", "enabled")
    numbers, failed_calls = itertools.count(), len(api_server.failed_calls)
    created = []

    def rotations():
        return [
            sum(line["event"] == "certificate-reloaded" for line in each.events) for each in installed.replicas[WEBHOOK]
        ]

    before = rotations()

    def rotated():
        return min(now - then for now, then in zip(rotations(), before, strict=True))

    async def create():
        while (number := next(numbers)) < CREATES or rotated() < ROTATIONS:
            created.append(is_injected(await installed.api.create(pods(namespace), pod(f"web-{number}"))))

    await asyncio.gather(*(create() for _ in range(AT_ONCE)))
    print(f"{len(created)} creates, {sum(created)} injected, {rotated()} rotations of each replica")

    assert [] == api_server.failed_calls[failed_calls:]
    assert len(created) >= CREATES
    assert all(created)
    assert 2 == len(+installed.services[WEBHOOK].connections)


async def test_an_apply_keeps_the_authorities(install):
    """To apply the manifests again, on either side, takes no ``caBundle`` away: pods stay injected."""
    installed = await install()
    await installed.start()
    namespace = await installed.namespace("shop", "enabled")
    for number, how in enumerate(([], ["--server-side", "--force-conflicts"])):
        await installed.apply(*how)

        assert is_injected(await installed.api.create(pods(namespace), pod(f"web-{number}")))


async def test_a_canary(install):
    """With the component, each pod is injected once: by the canary where pod or namespace name its revision."""
    installed = await install("canary")
    await installed.start()
    await installed.start(deployment=CANARY, revision="canary")
    plain, enabled = await installed.namespace("plain"), await installed.namespace("shop", "enabled")
    trying = await installed.namespace("trial", "enabled", revision="canary")
    found = {}
    for namespace, inject, revision in itertools.product((plain, enabled, trying), ("", "enabled"), ("", "canary")):
        made = await installed.api.create(pods(namespace), pod("web", inject, revision), dryRun="All")
        images = [each["image"] for each in made["spec"]["containers"] if each["name"] == "ai-sidecar"]
        found[namespace, inject, revision] = images
    stable, canary = [image(WEBHOOK)], [image(CANARY)]

    assert found == {
        (plain, "", ""): [], (plain, "", "canary"): [],
        (plain, "enabled", ""): stable, (plain, "enabled", "canary"): canary,
        (enabled, "", ""): stable, (enabled, "", "canary"): canary,
        (enabled, "enabled", ""): stable, (enabled, "enabled", "canary"): canary,
        (trying, "", ""): canary, (trying, "", "canary"): canary,
        (trying, "enabled", ""): canary, (trying, "enabled", "canary"): canary,
    }  # fmt: skip


@pytest.mark.parametrize("overlay", OVERLAYS)
async def test_overlays(install, overlay):
    """The webhook of each overlay runs as its Deployment says, by the overlay's configuration, and injects."""
    installed = await install(overlay=overlay)
    await installed.start()
    namespace = await installed.namespace("shop", "enabled")
    made = await installed.api.create(pods(namespace), pod("web"))
    [deployed] = only(installed.objects, "Deployment", WEBHOOK)["spec"]["template"]["spec"]["containers"]
    told = [each.removeprefix("--image=") for each in deployed["args"] if each.startswith("--image=")]

    assert is_injected(made)
    assert containers(made)["ai-sidecar"]["image"] == (told[0] if told else image(WEBHOOK))


async def test_a_bad_configuration_is_refused(install, api_server):
    """``kubectl apply`` of a labelled ConfigMap that is wrong is refused with file and line; a right one is taken."""
    installed = await install()
    await installed.start()
    namespace = await installed.namespace("shop")
    bad = await api_server.kubectl(
        "apply", "-n", namespace, "-f", "-", stdin=config_map("bad", "version: 1\n\nmod: normal\n")
    )
    good = config_map("good", "version: 1\nmode: normal\n")

    assert 1 == bad.returncode
    assert "sidecar.yaml:3" in bad.stderr
    assert "mod" in bad.stderr
    assert "configmap/good created" in await installed.kubectl("apply", "-n", namespace, "-f", "-", stdin=good)


async def test_without_a_webhook(install):
    """``Ignore`` lets pods through while no replica runs; with `fail-closed` nobody creates a pod there."""
    installed = await install()
    await installed.start()
    namespace = await installed.namespace("shop", "enabled")
    await installed.stop()

    assert {"app"} == containers(await installed.api.create(pods(namespace), pod("web"))).keys()

    await installed.start()

    assert is_injected(await installed.api.create(pods(namespace), pod("later")))
    assert not is_injected(await installed.api.get(f"{pods(namespace)}/web"))


async def test_fail_closed(install):
    """With the component, no pod of a labelled namespace starts while no replica runs; other namespaces go on."""
    installed = await install("fail-closed")
    await installed.start()
    namespace, other = await installed.namespace("shop", "enabled"), await installed.namespace("plain")
    await installed.stop()
    with pytest.raises(RefusedByServer, match=r"namespaces[.]ai-sidecar[.]dev"):
        await installed.api.create(pods(namespace), pod("web"))

    assert {"app"} == containers(await installed.api.create(pods(other), pod("web"))).keys()


async def test_rights(install, api_server):
    """The roles of the manifests are enough for all that the webhook does, and it uses each right that they give."""
    installed = await install("sync")
    labelled, own, old = [await installed.namespace(name, "enabled") for name in ("shop", "own", "old")]
    maps = "/api/v1/namespaces/{}/configmaps"
    team = {"metadata": {"name": "ai-sidecar"}, "data": {"sidecar.yaml": "version: 1\n"}}
    stale = {"metadata": {"name": "ai-sidecar", "labels": {"ai-sidecar.dev/synced": "true"}}, "data": {"a": "b"}}
    await installed.api.create(maps.format(own), team)
    await installed.api.create(maps.format(old), stale)
    await installed.api.create(f"/api/v1/namespaces/{old}/secrets", {"metadata": {"name": "ai-sidecar"}})
    seen = len(api_server.asked)
    await installed.start(SHORT_LIFE)
    [replica] = installed.replicas[WEBHOOK]

    def asked():
        return [each for each in api_server.asked[seen:] if "objectRef" in each]

    def unused():
        return {right for right in rights(installed.objects) if not any(map(right.allows, asked()))}

    def refused():
        return [each for each in asked() if each["responseStatus"]["code"] == 403]

    async def is_done():
        renewed = sum(line["event"] == "certificate-reloaded" for line in replica.events) > 1
        return refused() or (renewed and not unused())

    async def data(namespace):
        return (await installed.api.get(f"{maps.format(namespace)}/ai-sidecar"))["data"]

    with suppress(TimeoutError):  # what was not done is seen below
        await until(is_done)
    wanted = only(installed.objects, "ConfigMap", "ai-sidecar")["data"]

    assert [] == refused()
    assert set() == unused()
    assert [] == [line for line in replica.events if line["event"] in {"cluster-error", "bug"}]
    assert await is_done()
    assert [wanted, team["data"], wanted] == [await data(name) for name in (labelled, own, old)]
    assert [] == (await installed.api.get(f"/api/v1/namespaces/{labelled}/secrets"))["items"]
    assert b"sidecar_admission_namespaces_without_secret 2.0" in await replica.metrics()
