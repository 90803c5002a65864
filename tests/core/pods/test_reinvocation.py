"""What other webhooks do to a pod between two of our calls, and what pods do that are made to exhaust us."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.core.pods.inject import Injected, Kept, inject, uninject
from sidecar.core.pods.reasons import MOST_CONTAINERS
from sidecar.core.pods.settings import LONGEST_LIST, NO_PROXY, SKIP, Injection, Reachable

SERVICES = (Reachable("openai", "http://127.0.0.1:7400/openai", ("https://api.openai.com",), "OPENAI_BASE_URL", "/v1"),)
NATIVE = Injection("image@sha256:1", SERVICES)
CLASSIC = Injection("image@sha256:1", SERVICES, version=(1, 27))


def pod(*containers: dict[str, Any], **annotations: str) -> dict[str, Any]:
    return {"metadata": {"annotations": annotations}, "spec": {"containers": list(containers) or [{"name": "app"}]}}


def injected(one: dict[str, Any], settings: Injection = NATIVE) -> dict[str, Any]:
    outcome = inject(one, settings)
    assert isinstance(outcome, Injected), outcome
    return dict(outcome.pod)


@pytest.mark.parametrize("settings", [NATIVE, CLASSIC], ids=["native", "classic"])
@pytest.mark.parametrize(
    "more",
    [{"ports": [{"containerPort": 7400}]}, {"livenessProbe": {"httpGet": {"port": 7491}}}],
    ids=["declared", "asked"],
)
def test_a_port_that_somebody_takes_afterwards(settings, more):
    """Two cannot listen there, and a native sidecar that does not start holds the pod in Init: ours is taken out."""
    once = injected(pod(), settings)
    theirs = {"name": "theirs", **more}
    outcome = inject({**once, "spec": {**once["spec"], "containers": [*once["spec"]["containers"], theirs]}}, settings)

    assert isinstance(outcome, Kept)
    assert "port 74" in outcome.reason
    assert pod({"name": "app"}, theirs) == outcome.pod


def test_a_container_that_loses_all_that_was_set():
    """What had no table of variables has none again, although all of ours went before."""
    once = injected(pod())
    [app] = once["spec"]["containers"]
    table = {"envFrom": [{"secretRef": {"name": "s"}}]}
    twice = injected({**once, "spec": {**once["spec"], "containers": [{**app, **table}]}})

    assert [] == twice["spec"]["containers"][0]["env"]
    assert pod({"name": "app", **table}) == uninject(twice)


@pytest.mark.parametrize("name", [NO_PROXY, SKIP])
def test_a_list_that_is_too_long(name):
    """It is no reason against an injection, and not used: it would be repeated for each container."""
    most, more = "app," * (LONGEST_LIST // 4), "app," * (LONGEST_LIST // 4) + "x"
    outcome = inject(pod(**{name: more}), NATIVE)

    assert isinstance(outcome, Injected)
    assert outcome.warnings[0].startswith(f"{name}: is longer than")
    assert injected(pod())["spec"]["containers"] == outcome.pod["spec"]["containers"]
    assert injected(pod())["spec"]["containers"] != injected(pod(**{name: most}))["spec"]["containers"]


def test_very_many_containers():
    """Each would get variables; a pod of so many is left alone."""
    most = [{"name": f"c{at}"} for at in range(MOST_CONTAINERS)]

    assert isinstance(inject(pod(*most), NATIVE), Injected)
    assert isinstance(inject(injected(pod(*most)), NATIVE), Injected), "ours is not one of them"
    assert isinstance(inject(pod(*most, {"name": "another"}), NATIVE), Kept)


def test_a_value_that_is_no_text():
    """An API server refuses it. In a file it is left alone, with one reason."""
    outcome = inject(pod({"name": "app", "env": [{"name": "PORT", "value": 8080}]}), NATIVE)

    assert isinstance(outcome, Kept)
    assert "env[" in outcome.reason
