"""
The keys of a service, as data: how calls reach it, its regions, their credentials, and their breakers.

The rule: as in ``schema``, of which this is a part.
"""

from __future__ import annotations

from sidecar.core.durations import as_duration
from sidecar.core.rules import AzureIdentity, BreakerRule, Region, Service
from sidecar.dialects import DIALECTS
from sidecar.dialects.generic import GENERIC
from sidecar.settings import forms
from sidecar.settings.forms import choice
from sidecar.settings.identity_keys import AZURE_KEYS, KEYS, identities
from sidecar.settings.quantities import OWN_PORT, as_percent, duration, percent, whole
from sidecar.settings.shapes import Items, Named, Setting, Table, in_file

_DAY = 86400.0
_LATER_DIALECTS = frozenset({
    "gemini", "cohere", "mistral", "ollama", "bedrock",
})  # fmt: skip

_BREAKER, _REGION, _IDENTITY = BreakerRule(), Region("", ""), AzureIdentity("managed")

_SECRET = {
    **dict.fromkeys(KEYS, in_file("credential.file")),
    **dict.fromkeys(AZURE_KEYS, "remove it, and use credential.workload_identity, which needs none"),
}


_CREDENTIAL = Table(
    {
        "header": Setting(
            forms.CREDENTIAL_HEADER, "the header that carries it, such as `authorization`", required=True
        ),
        "prefix": Setting(forms.SCHEME, 'what stands before it, such as `"Bearer "`', '""'),
        "file": Setting(forms.FILE, "the mounted file that holds it; read again when it changes", required=True),
        **identities(_IDENTITY.scope, {}),
    },
    secret=_SECRET,
    ways=(("header", "file", "prefix"), ("managed_identity",), ("workload_identity",)),
)

_REGION_KEYS = Table(
    {
        "name": Setting(forms.NAME, "its name in headers, metrics and logs", required=True),
        "url": Setting(
            forms.URL,
            "scheme, host, optional port and base path; `{resource}` in it is filled from the path's next segment",
            required=True,
        ),
        "priority": Setting(
            whole(1, 1000), "the lowest number goes first; the others take over where it fails", str(_REGION.priority)
        ),
        "weight": Setting(
            whole(0, 1000),
            "its share of the calls among regions of its priority; 0: only where these fail",
            str(_REGION.weight),
        ),
        "residency": Setting(forms.TAG, "the tag by which a route's `allow` names it", "its name"),
        "credential_domain": Setting(
            forms.NAME,
            "whose keys work there: the caller's own credential goes only to regions of the first region's domain (the "
            "first of those without `credential`); `microsoft` also lets tokens issued by Microsoft through to a host "
            "that is not Microsoft's, such as a gateway",
            "one for the service where its keys work everywhere; else one for each region",
        ),
        "credential": Setting(_CREDENTIAL, "a credential that the region supplies", "the caller's own is passed on"),
        "deployments": Setting(
            Named(forms.MODEL, forms.DEPLOYMENT), "what models that callers name are called there, such as on Azure"
        ),
    },
    frozenset({"billing"}),
    _SECRET,
)

_BREAKER_KEYS = Table(
    {
        "consecutive_unanswered": Setting(
            whole(1, 100),
            "opens it after so many failures in a row without an answer",
            str(_BREAKER.consecutive_unanswered),
        ),
        "consecutive_errors": Setting(
            whole(1, 100), "opens it after so many errors in a row", str(_BREAKER.consecutive_errors)
        ),
        "failure_rate": Setting(
            percent(), "opens it where at least this part of the last calls failed", as_percent(_BREAKER.failure_rate)
        ),
        "window": Setting(
            whole(1, 1000),
            "how many calls the rates look back; so many in a row without an answer also shut the only region",
            str(_BREAKER.window),
        ),
        "minimum_calls": Setting(
            whole(1, 1000), "the rates count from so many calls on", f"{_BREAKER.minimum_calls}, at most window"
        ),
        "open": Setting(
            duration(0.001, 3600.0),
            "how long it stays open at first; after each probe that fails twice as long, up to 1m",
            as_duration(_BREAKER.open),
        ),
        "slow_call": Setting(
            duration(0.001, _DAY, off=True), "a call that takes longer to its answer's first event is slow", "off"
        ),
        "slow_rate": Setting(
            percent(), "opens it where at least this part of the last calls was slow", as_percent(_BREAKER.slow_rate)
        ),
        "shared": Setting(
            forms.SWITCH,
            "`true`: the fleet opens it together; needs `cache.redis`, and is not for a service with `{resource}` in "
            "its urls, of which each process judges alone",
            str(_BREAKER.shared).lower(),
        ),
    }
)

_HEADERS = Table(
    {
        "count": Setting(Items(forms.COUNTED_HEADER), "fields that count as well"),
        "ignore": Setting(
            Items(forms.IGNORED_HEADER), "fields that don't count, for the answer does not depend on them"
        ),
    }
)

_TOKENS = Table(
    {
        "ignore_claims": Setting(
            Items(forms.CLAIM), "claims that change from token to token although the caller is the same"
        ),
        "issuer": Setting(forms.TEXT, "the `iss` of tokens that the sidecar verifies itself"),
        "audience": Setting(forms.TEXT, "the `aud` that they have"),
        "jwks_file": Setting(
            forms.FILE, "the mounted file that holds the issuer's public keys (JSON Web Key Set); read again when it "
            "changes"
        ),
    }
)  # fmt: skip

SERVICE = Table(
    {
        "dialect": Setting(
            choice(DIALECTS, what="dialect", later=_LATER_DIALECTS),
            "the API it speaks",
            "required; for a built-in's name, the built-in's",
        ),
        "path": Setting(
            forms.PREFIX,
            "the prefix of its base URL: `http://127.0.0.1:7400/openai`",
            "if neither path, hosts nor port is said: the built-in's, else `/NAME`",
        ),
        "hosts": Setting(Items(forms.HOST), "host names that are this service's; a host match beats a path match"),
        "port": Setting(OWN_PORT, "a port of its own, for SDKs that tolerate no path prefix", "the shared port"),
        "regions": Setting(
            Items(_REGION_KEYS, 1),
            "where it answers; a call that one region fails goes to the next",
            "required; for a built-in's name, the built-in's",
        ),
        "breaker": Setting(_BREAKER_KEYS, "when a region that fails gets no calls for a while; one breaker for each"),
        "balance": Setting(
            choice({"weight": "weight", "latency": "latency"}, what="way to balance"),
            "how regions of one priority share the calls; `latency`: the quicker of two, drawn by weight",
            Service("", GENERIC, ()).balance,
        ),
        "headers": Setting(
            _HEADERS,
            "which fields of a request count in its key. At a vendor's own hosts those of the dialect do; where a "
            "region is anywhere else, and for `generic`, every field does but documented noise (see `docs/keys.md`)",
        ),
        "credential_headers": Setting(
            Items(forms.CREDENTIAL_HEADER), "fields that carry a credential, beside those whose name says so"
        ),
        "tokens": Setting(
            _TOKENS,
            "what is known of the tokens (JWT) that callers send; `issuer`, `audience` and `jwks_file` together have "
            "them verified here",
        ),
    },
    secret=_SECRET,
)
