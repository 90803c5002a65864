"""
Request header fields that have no influence on the answer, wherever a call goes.

The rule: a field is listed here only if its standard, its vendor or its SDK documents that the answer does not depend
on it. Any other field counts if the host is not the vendor's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

NOISE: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "tracing": (
        "traceparent", "tracestate", "baggage", "b3", "x-b3-*", "uber-trace-id", "uberctx-*", "x-datadog-*",
        "x-amzn-trace-id", "x-cloud-trace-context", "grpc-trace-bin", "sentry-trace", "newrelic",
        "elastic-apm-traceparent", "x-instana-t", "x-instana-s", "x-instana-l", "x-dynatrace", "sw8", "x-trace-id",
        "x-span-id", "x-ot-span-context",
    ),
    "correlation": (
        "x-request-id", "request-id", "x-correlation-id", "correlation-id", "x-client-request-id", "client-request-id",
        "x-ms-client-request-id", "x-ms-return-client-request-id", "x-ms-correlation-request-id", "x-ms-request-id",
        "x-clienttraceid", "request-context", "x-transaction-id", "amz-sdk-invocation-id", "amz-sdk-request",
    ),
    "idempotency": (
        "idempotency-key", "x-idempotency-key", "repeatability-request-id", "repeatability-first-sent",
        "repeatability-client-id",
    ),
    "user agents": (
        "user-agent", "x-user-agent", "x-ms-useragent", "x-amz-user-agent", "x-goog-api-client", "sec-ch-ua*", "dnt",
        "sec-gpc", "sec-fetch-dest", "sec-fetch-mode", "sec-fetch-site", "sec-fetch-user", "upgrade-insecure-requests",
        "priority",
    ),
    "SDK telemetry": (
        "x-stainless-*", "x-fern-*", "x-client-name", "x-server-timeout",
        "anthropic-dangerous-direct-browser-access",
    ),
    "sessions, traces and metadata of gateways": (
        "x-portkey-trace-id", "x-portkey-span-id", "x-portkey-parent-span-id", "x-portkey-span-name",
        "x-portkey-metadata", "helicone-session-id", "helicone-session-name", "helicone-session-path",
        "helicone-request-id", "helicone-property-*", "helicone-user-id", "cf-aig-metadata", "cf-aig-event-id",
        "x-litellm-trace-id", "x-litellm-session-id", "x-litellm-call-id", "x-langfuse-*", "langfuse_*",
        "http-referer", "x-title", "x-openrouter-title",
    ),
    "forwarding": (
        "forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-port",
        "x-forwarded-prefix", "x-forwarded-server", "x-original-forwarded-for", "x-real-ip", "via", "x-client-ip",
        "true-client-ip", "cdn-loop", "cf-connecting-ip", "cf-ray", "cf-ipcountry", "cf-visitor", "fastly-client-ip",
        "x-azure-clientip", "x-azure-ref", "x-azure-socketip", "x-envoy-attempt-count", "x-envoy-decorator-operation",
        "x-envoy-expected-rq-timeout-ms", "x-envoy-external-address", "x-envoy-internal", "x-envoy-original-path",
        "x-envoy-peer-metadata", "x-envoy-peer-metadata-id",
    ),
    "encodings": ("accept-encoding", "accept-charset", "content-encoding", "accept"),
    "dates": ("date", "x-amz-date", "x-ms-date"),
    "lengths": ("content-length", "expect"),
    "connection": (
        "connection", "keep-alive", "proxy-authenticate", "proxy-connection", "te", "trailer", "transfer-encoding",
        "upgrade", "http2-settings", "host",
    ),
    "protection of web pages": ("x-csrf-token", "x-xsrf-token", "origin"),
    "spoken to the sidecar": (
        "cache-control", "pragma", "x-sidecar-ttl", "x-sidecar-tags", "x-sidecar-fallback",
        "x-sidecar-priority", "x-sidecar-callback", "x-sidecar-readers",
    ),
})  # fmt: skip
"""
By purpose; ``*`` stands for any rest of a name.

``content-encoding`` and ``origin`` decide earlier: such a call is not looked up. ``accept`` counts for the generic
dialect, whose table says so.
"""

IDEMPOTENCY = frozenset(name.encode() for name in NOISE["idempotency"])
"""Among these, the fields that a service may refuse because another call has used the same value."""

_PLAIN = frozenset(name.encode() for names in NOISE.values() for name in names if not name.endswith("*"))
_PREFIXES = tuple(name[:-1].encode() for names in NOISE.values() for name in names if name.endswith("*"))

BALANCERS = ("__cf_bm", "_cfuvid", "__cflb", "AWSALB*", "ARRAffinity*")
"""Cookies by which load balancers find the same server again; they identify no caller (Cloudflare, AWS, Azure)."""

_BALANCER = re.compile(
    rb"(?:%b)=[^\s\",;]*\Z"
    % b"|".join(
        re.escape(name.removesuffix("*").encode()) + (rb"[A-Za-z]*" if name.endswith("*") else b"")
        for name in BALANCERS
    )
)


def is_noise(name: bytes) -> bool:
    """Whether the field *name*, in lower case, has no influence on the answer."""
    return name in _PLAIN or name.startswith(_PREFIXES)


def without_balancers(cookies: bytes) -> bytes:
    """The value of a ``cookie`` field without the cookies of load balancers; ``b""`` if nothing else is in it."""
    kept = [pair for part in cookies.split(b";") if (pair := part.strip()) and not _BALANCER.match(pair)]
    return b"; ".join(kept)
