"""
The row about admission: an API server's reviews of pods, over TLS, and among them large ones and wrong ones.

The rule: the webhook is a real process and has the first core. Its callers keep their connections, four at once, and
each sends its next review when it has its answer. They speak HTTP/1.1; an API server speaks HTTP/2 where a webhook
does, and ours does not.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import ssl
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from tests.bench.lab import Lab, Pace, Row
from tests.bench.load import Caller
from tests.bench.machine import LOAD_CORE, SERVER_CORE, Process, free_port
from tests.redis_servers import write_certificates

CONTAINERS = 15
VARIABLES = 12
AT_ONCE = 4
LARGE = 3 * 1000 * 1000
"""Bytes of an object: an API server takes none that is larger."""

_BAR_MS = 50.0
_PROBE_SECONDS = 0.02
_JSON = "application/json"


class Webhook(AbstractContextManager["Webhook"]):
    """A running ``sidecar webhook``: *port* for reviews, *health_port* for probes. *trust* is for its callers."""

    def __init__(self, home: Path) -> None:
        home.mkdir()
        write_certificates(home)
        self.port, self.health_port = free_port(), free_port()
        self.trust = ssl.create_default_context(cafile=str(home / "ca.pem"))
        arguments = {
            "--image": "ghcr.io/ai-sidecar/ai-sidecar@sha256:" + 64 * "0", "--host": "127.0.0.1",
            "--port": self.port, "--health-port": self.health_port,
            "--tls-cert": home / "cert.pem", "--tls-key": home / "key.pem",
        }  # fmt: skip
        words = [str(word) for pair in arguments.items() for word in pair]
        command = [sys.executable, "-m", "sidecar", "webhook", *words]
        self.process = Process("webhook", command, core=SERVER_CORE, log=home / "output.log")
        self.process.await_port(self.port)
        self.process.await_port(self.health_port)

    def __exit__(self, *_: object) -> None:
        self.process.stop()

    def results(self) -> dict[str, int]:
        """How many reviews ended how, as its metrics tell."""
        with Caller(self.health_port) as caller:
            lines = caller.get("/metrics").decode().splitlines()
        name = "sidecar_admission_reviews_total{"
        pairs = [line.removeprefix(name).split("} ") for line in lines if line.startswith(name)]
        return {labels.split('"')[1]: int(float(value)) for labels, value in pairs}


@dataclass(frozen=True, slots=True)
class Ask:
    """A request to the webhook. *status* is what its answer must have; *kind* tells it apart."""

    kind: str
    body: bytes
    status: int = 200
    content_type: str = _JSON


@dataclass(slots=True)
class Answered:
    """Milliseconds of answers by kind, and answers that were wrong."""

    milliseconds: dict[str, list[float]] = field(default_factory=dict)
    wrong: Counter[str] = field(default_factory=Counter)

    def note(self, ask: Ask, status: int, body: bytes, seconds: float) -> None:
        """Judge one answer."""
        self.milliseconds.setdefault(ask.kind, []).append(1e3 * seconds)
        if status != ask.status:
            self.wrong[f"{ask.kind}: {status}"] += 1
        elif status == 200 and not _is_injected(body):
            self.wrong[f"{ask.kind}: not injected"] += 1


def pod(number: int, **metadata: Any) -> dict[str, Any]:
    """A pod of 15 containers, as an API server sends it."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"orders-{number}", "namespace": "shop", "labels": {"app": "orders"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "orders", "uid": "r"}],
            **metadata,
        },
        "spec": {
            "containers": [_container(place) for place in range(CONTAINERS)],
            "volumes": [{"name": f"data-{place}", "emptyDir": {}} for place in range(5)],
            "serviceAccountName": "orders",
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}],
        },
    }  # fmt: skip


def review(number: int, of: Mapping[str, Any], **more: Any) -> bytes:
    """A review of the creation of a pod."""
    request = {
        "uid": f"00000000-0000-0000-0000-{number:012}",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "operation": "CREATE",
        "namespace": "shop",
        "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller", "groups": ["all"]},
        "object": of,
        "oldObject": None,
        "dryRun": False,
    }
    document = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request, **more}
    return json.dumps(document, separators=(",", ":")).encode()


def common(count: int) -> list[Ask]:
    """Reviews of pods that a workload makes."""
    return [Ask("pods", review(number, pod(number))) for number in range(count)]


def large() -> list[Ask]:
    """Objects of three megabytes: one long text, many variables in one container, many containers."""
    long = pod(1)
    long["spec"]["containers"][0]["args"] = ["x" * LARGE]
    variables, containers = pod(2), pod(3)
    one = {"name": "SETTING_00000", "value": "https://settings.example.com/v1"}
    many = LARGE // (len(json.dumps(one)) + 1)
    variables["spec"]["containers"][0]["env"] = [{**one, "name": f"SETTING_{place:05}"} for place in range(many)]
    count = LARGE // (len(json.dumps(_container(1_000, 200), separators=(",", ":"))) + 1)
    containers["spec"]["containers"] = [_container(1_000 + place, 200) for place in range(count)]
    return [
        Ask(f"3 MB, {what}", review(number, of))
        for number, (what, of) in enumerate((("one text", long), ("variables", variables), ("containers", containers)))
    ]


def wrong() -> list[Ask]:
    """What an API server would not send."""
    one = review(1, pod(1))
    return [
        Ask("wrong", one, 415, "text/plain"),
        Ask("wrong", one[: len(one) // 2], 400),
        Ask("wrong", review(1, pod(1), apiVersion="admission.k8s.io/v1beta1"), 400),
        Ask("wrong", review(1, pod(1), kind="TokenReview"), 400),
        Ask("wrong", b"", 400),
        Ask("wrong", b" " * (9 * 1024 * 1024), 413),
    ]


def send(webhook: Webhook, asks: Sequence[Ask], *, at_once: int = AT_ONCE) -> Answered:
    """Send all of *asks* over so many kept connections."""
    answered = Answered()
    lock = threading.Lock()
    left = iter(asks)

    def work() -> None:
        os.sched_setaffinity(0, {LOAD_CORE})  # of this thread
        connection = http.client.HTTPSConnection("localhost", webhook.port, context=webhook.trust, timeout=60)
        while True:
            with lock:
                ask = next(left, None)
            if ask is None:
                break
            began = time.perf_counter()
            try:
                connection.request("POST", "/mutate?timeout=5s", ask.body, {"Content-Type": ask.content_type})
                reply = connection.getresponse()
                status, body = reply.status, reply.read()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                with lock:
                    answered.wrong[f"{ask.kind}: {type(error).__name__}"] += 1
                continue
            seconds = time.perf_counter() - began
            with lock:
                answered.note(ask, status, body, seconds)
        connection.close()

    with ThreadPoolExecutor(at_once) as pool:
        for done in [pool.submit(work) for _ in range(at_once)]:
            done.result()
    return answered


@contextmanager
def probing(webhook: Webhook) -> Iterator[list[float]]:
    """Milliseconds of /livez, asked every 20 ms while the ``with`` block runs."""
    found: list[float] = []
    over = threading.Event()

    def probe() -> None:
        with Caller(webhook.health_port) as caller:
            while not over.wait(_PROBE_SECONDS):
                began = time.perf_counter()
                caller.get("/livez")
                found.append(1e3 * (time.perf_counter() - began))

    thread = threading.Thread(target=probe)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def admission(lab: Lab, pace: Pace) -> list[Row]:
    """A thousand reviews of 15 containers; the same with large and wrong ones among them; then ten thousand."""
    many = 2_000 if pace.quick else 10_000
    asks = common(1_000)
    with Webhook(lab.folder()) as webhook:
        send(webhook, asks[:50])
        idle = webhook.process.memory()["rss"]
        before = webhook.process.cpu_seconds()
        plain = send(webhook, asks)
        spent = 1e3 * (webhook.process.cpu_seconds() - before) / len(asks)
        first = webhook.process.memory()["rss"]
        among = [ask for number in range(0, 1_000, 50) for ask in (*asks[number : number + 50], *large(), *wrong())]
        with probing(webhook) as probes:
            mixed = send(webhook, among)
        busy = webhook.process.memory()["rss"]
        for number in range(many // 1_000):
            again = send(webhook, asks)
            plain.wrong += again.wrong
            if not number:
                settled = webhook.process.memory()["rss"]
        last = webhook.process.memory()["rss"]
        results = webhook.results()
    wrong_answers = plain.wrong + mixed.wrong
    sent = 50 + 1_000 + len(among) + many
    details = {"wrong": wrong_answers, "results": results, "rss": [idle, first, busy, settled, last]}
    p50, p99 = _percentiles(plain.milliseconds["pods"])
    between = _percentiles(mixed.milliseconds["pods"])
    longest = {kind: max(found) for kind, found in mixed.milliseconds.items() if kind.startswith("3 MB")}
    middle = {kind: median(found) for kind, found in mixed.milliseconds.items() if kind.startswith("3 MB")}
    return [
        Row("admission", f"1,000 reviews, {AT_ONCE} at once: p50, p99, ms", f"{p50:.1f}, {p99:.1f}",
            f"{spent:.1f} of processor", bar=f"p99 < {_BAR_MS:.0f} ms", reached=p99 < _BAR_MS, details=details),
        Row("admission", "the same beside 3 MB objects: p50, p99, ms", f"{between[0]:.1f}, {between[1]:.1f}",
            f"longest probe {max(probes):.0f}", details={"large_longest": longest, "large_median": middle},
            note="; ".join(f"{kind}: {found:.0f} ms" for kind, found in middle.items())),
        Row("admission", f"answers that were not right, of {sent:,}", str(sum(wrong_answers.values())), bar="0",
            reached=not wrong_answers, required=True, note=", ".join(wrong_answers)),
        Row("admission", f"resident MiB: idle, after 1,000, {many:,} more", f"{idle:.1f}, {first:.1f}, {last:.1f}",
            f"after 3 MB objects {busy:.1f}, {settled:.1f}", bar="<= 4 MiB more", reached=last - settled <= 4.0),
    ]  # fmt: skip


def _container(number: int, count: int = VARIABLES) -> dict[str, Any]:
    variables = [{"name": f"SETTING_{place}", "value": f"value-{place}" * 3} for place in range(count)]
    secret = {"secretKeyRef": {"name": "orders", "key": "token"}}
    return {
        "name": f"app-{number}",
        "image": f"registry.example.com/shop/app-{number}:1.14.2",
        "command": ["/bin/app", "--port", str(9000 + number % 100)],
        "env": [
            *variables,
            {"name": "AZURE_OPENAI_ENDPOINT", "value": "https://shop.openai.azure.com/"},
            {"name": "TOKEN", "valueFrom": secret},
        ],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": 9000 + number % 100}, "periodSeconds": 10},
        "volumeMounts": [{"name": f"data-{number % 5}", "mountPath": "/data"}],
        "terminationMessagePath": "/dev/termination-log",
        "imagePullPolicy": "IfNotPresent",
    }


def _is_injected(body: bytes) -> bool:
    response = json.loads(body)["response"]
    return response["allowed"] is True and b"ai-sidecar" in base64.b64decode(response.get("patch", ""))


def _percentiles(milliseconds: Sequence[float]) -> tuple[float, float]:
    return median(milliseconds), quantiles(milliseconds, n=100)[-1]


ROWS = {"admission": admission}
