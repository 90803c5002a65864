"""What is different between two configurations, and what that means for stored answers."""

from __future__ import annotations

import re

import pytest

from sidecar.core.rules import Rules
from sidecar.settings import load
from sidecar.settings.difference import LONGEST_SUMMARY, changes, effects, summary
from sidecar.settings.problems import HIDDEN


@pytest.fixture
def read(tmp_path):
    """Rules from the text of a configuration."""

    def read(text: str) -> Rules:
        file = tmp_path / "sidecar.yaml"
        file.write_text(text)
        return load(str(file), environ={}, overrides={}, strict=True)

    return read


LLM = "services: {llm: {dialect: openai, regions: [{name: e, url: 'https://e.example'}]%s}}\n"
LENT = (LLM % "").replace("url", "credential: {header: authorization, %sfile: /key}, url")
IDENTITY = (LLM % "").replace("url", "credential_domain: microsoft, credential: {workload_identity: {%s}}, url")
TWO = "services: {llm: {dialect: openai, regions: [{name: %s, url: 'https://r'}, {name: %s, url: 'https://r'}]}}\n"
ROUTE = "routes: [{name: team, match: {service: llm}%s}]\n"

CASES = {
    "a number": ("limits: {collect: 1Mi}", "limits: {collect: 3Mi}", ["limits.collect: 1Mi → 3Mi"]),
    "seconds": ("limits: {idle: 5m}", "limits: {idle: 90s}", ["limits.idle: 5m → 90s"]),
    "a share": ("log: {sample: 1%}", "log: {sample: 50%}", ["log.sample: 1% → 50%"]),
    "a word": ("", "mode: cache-off", ["mode: normal → cache-off"]),
    "a file": ("", "upstream: {ca_file: /ca.pem}", ["upstream.ca_file: (none) → /ca.pem"]),
    "a list": ("listen: {names: [a]}", "listen: {names: [a, b]}", ["listen.names: a → a, b"]),
    "a default": ("", "cache: {memory: {max_bytes: 64Mi}}", []),
    "a comment": ("mode: normal", "# a comment\nmode:   normal\n", []),
    "of a service": (LLM % "", LLM % ", headers: {count: [x-b, x-a]}",
                     ["services.llm.headers.count: (none) → x-a, x-b"]),
    "of a region": (LLM % "", (LLM % "").replace("url", "weight: 3, url"),
                    ["services.llm.regions.e.weight: 1 → 3"]),
    "a breaker": (LLM % "", LLM % ", breaker: {failure_rate: 25%, open: 1m}",
                  ["services.llm.breaker.failure_rate: 50% → 25%", "services.llm.breaker.open: 5s → 1m"]),
    "of a route": (LLM % "" + ROUTE % "", LLM % "" + ROUTE % ", cache: {ttl: 2h, share: header:X-Team, seed: trusted}",
                   ["routes.team.cache.share: principal → header:x-team", "routes.team.cache.seed: false → true",
                    "routes.team.cache.ttl: (none) → 2h"]),
    "a port": (LLM % "", LLM % ", port: 7500",
               ["services.llm.path: /llm → (none)", "services.llm.port: (none) → 7500"]),
    "a whole route": (LLM % "", LLM % "" + ROUTE % ", cache: {ttl: 2h}", ["routes.team: added"]),
    "a whole service": (LLM % "", "", ["services.llm: removed"]),
    "a region's credential": (
        LLM % "", (LLM % "").replace("url", "credential: {header: authorization, file: /key}, url"),
        ["services.llm.regions.e.credential.header: (none) → authorization",
         "services.llm.regions.e.credential.file: (none) → /key"],
    ),
    "a credential's prefix": (
        LENT % "", LENT % "prefix: 'Bearer ', ", ["services.llm.regions.e.credential.prefix: (none) → Bearer "],
    ),
    "a credential's file": (
        LENT % "", (LENT % "").replace("/key", "/other"),
        ["services.llm.regions.e.credential.file: /key → /other"],
    ),
    **{
        f"an identity's {key}": (
            IDENTITY % f"{key}: {was}", IDENTITY % f"{key}: {become}",
            [f"services.llm.regions.e.credential.workload_identity.{key}: {was} → {become}"],
        )
        for key, was, become in (
            ("tenant_id", "a", "b"), ("token_file", "/a", "/b"),
            ("scope", "https://a.example/.default", "https://b.example/.default"),
        )
    },
    "regions in another order": (TWO % ("a", "b"), TWO % ("b", "a"), ["services.llm.regions: a, b → b, a"]),
    "a built-in route's name": (
        "routes: [{name: chat, cache: {ttl: 1m}}]", "routes: [{name: chat, cache: {ttl: 2m}}]",
        ["routes.chat.cache.ttl: 1m → 2m"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("before", "after", "expected"), CASES.values(), ids=CASES)
def test_changes(read, before, after, expected):
    """Each key that differs, named as in the file, with both values in its units; nothing where nothing differs."""
    assert sorted(expected) == sorted(map(str, changes(read(before), read(after))))


def test_a_secret_in_a_wrong_place(read):
    """It is not shown, wherever it was pasted; that it is another one is."""
    secrets = ("sk-proj-abcdefghij0123456789", "sk-proj-klmnopqrst0123456789")
    before, after = (read((LLM % "").replace("url", f"deployments: {{m: {secret}}}, url")) for secret in secrets)

    assert [f"services.llm.regions.e.deployments.m: {HIDDEN} → {HIDDEN}"] == list(map(str, changes(before, after)))


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("", "", "nothing that counts"),
        ("", "cache: {memory: {max_bytes: 128Mi}}", "cache.memory.max_bytes: 64Mi → 128Mi"),
        (
            "routes: [{name: a}, {name: b}, {name: c}]",
            "routes: [{name: a, owner: x}, {name: b, cache: {ttl: 1m}}, {name: d}, {name: e}]\nlog: {sample: 2%}",
            "routes: +2 -1 ~2; log.sample: 1% → 2%",
        ),
        ("routes: [{name: a}, {name: b}]", "routes: [{name: b}, {name: a}]", "routes: in another order"),
        (LLM % "", (LLM % "").replace("llm", "other"), "services: +1 -1"),
    ],
)
def test_summary(read, before, after, expected):
    """Services and routes are counted, other keys stand with both values; the order of routes counts, too."""
    assert expected == summary(read(before), read(after))


def test_summary_of_files(read):
    """A file with other content is named; with nothing else, there is nothing else to say."""
    plain, off = read(""), read("mode: cache-off")

    assert "content of /a; content of /b" == summary(plain, plain, ["/a", "/b"])
    assert "mode: normal → cache-off; content of /a" == summary(plain, off, ["/a"])


def test_a_long_summary(read):
    """It stays one line of a log."""
    limits = "head: 1s, body: 1s, idle: 2s, reader: 3s, drain: 4s, collect: 1Mi, request_line: 2Ki, headers: 3Ki"
    text = f"limits: {{{limits}}}\nlog: {{sample: 9%}}\ncache: {{memory: {{max_bytes: 1Mi, max_entry_bytes: 2Ki}}}}"
    line = summary(read(""), read(f"{text}\nmode: cache-off\nupstream: {{proxy: none, ca_file: /ca.pem}}"))

    assert len(line) < LONGEST_SUMMARY + 20
    assert re.search(r"; and [0-9]+ more\Z", line)


OFF = "{name: first, match: {%s}, cache: {mode: off}}"
AHEAD = "routes: [%s{name: team, match: {service: llm, path: /b}}, {name: rest}]\n"
BOTH = "routes: [%s, %s]\n"
EFFECTS = {
    "ttl down": (ROUTE % ", cache: {ttl: 1h}", ROUTE % ", cache: {ttl: 5m}", [("team", False)]),
    "ttl up": (ROUTE % ", cache: {ttl: 5m}", ROUTE % ", cache: {ttl: 1h}", [("team", True)]),
    "off": (ROUTE % "", ROUTE % ", cache: {mode: off}", [("team", False)]),
    "on": (ROUTE % ", cache: {mode: off}", ROUTE % ", cache: {mode: always}", [("team", True)]),
    "observe": (ROUTE % "", ROUTE % ", cache: {mode: observe}", [("team", False)]),
    "off and off": (ROUTE % ", cache: {mode: off}", ROUTE % ", cache: {mode: observe}", []),
    "share": (ROUTE % "", ROUTE % ", cache: {share: service}", [("team", False)]),
    "less is deterministic": (ROUTE % ", cache: {mode: always}", ROUTE % "", [("team", False)]),
    "seeds": (ROUTE % ", cache: {seed: trusted}", ROUTE % "", [("team", False)]),
    "custom models": (ROUTE % ", cache: {custom_models: true}", ROUTE % "", [("team", False)]),
    "custom models from now on": (ROUTE % "", ROUTE % ", cache: {custom_models: true}", []),
    "URLs": (ROUTE % ", cache: {urls: unsigned}", ROUTE % ", cache: {urls: off}", [("team", False)]),
    "URLs from now on": (ROUTE % "", ROUTE % ", cache: {urls: unsigned}", []),
    "match": (ROUTE % "", (ROUTE % "").replace("service: llm", "service: llm, model: gpt-*"), [("team", False)]),
    "gone": (ROUTE % "", "", [("team", False)]),
    "only new": ("", ROUTE % "", []),
    "gone, and off before": (ROUTE % ", cache: {mode: off}", "", []),
    "less stale": (ROUTE % ", cache: {stale_if_error: 1h}", ROUTE % ", cache: {stale_if_error: 1m}", [("team", False)]),
    "more stale": (ROUTE % "", ROUTE % ", cache: {stale_while_revalidate: 1m}", []),
    "overtaken by a new one": (AHEAD % "", AHEAD % f"{OFF % ''}, ", [("team", False), ("rest", False)]),
    "overtaken by the order": (
        BOTH % ("{name: a, cache: {ttl: 1m}}", "{name: b, cache: {ttl: 2m}}"),
        BOTH % ("{name: b, cache: {ttl: 2m}}", "{name: a, cache: {ttl: 1m}}"),
        [("a", False)],
    ),
    "overtaken by one of the same rules": (BOTH % ("{name: a}", "{name: b}"), BOTH % ("{name: b}", "{name: a}"), []),
    "overtaken for other calls": (AHEAD % "", AHEAD % f"{OFF % 'service: openai'}, ", [("rest", False)]),
    "overtaken by one that takes more": (
        AHEAD % f"{OFF % 'path: /a'}, ",
        AHEAD % f"{OFF % 'path: /b'}, ",
        [("team", False), ("rest", False)],
    ),
    "owner": (ROUTE % "", ROUTE % ", owner: x", []),
    "timeouts": (ROUTE % "", ROUTE % ", timeouts: {connect: 1s}", []),
}


@pytest.mark.parametrize(("before", "after", "expected"), EFFECTS.values(), ids=EFFECTS)
def test_effects_of_routes(read, before, after, expected):
    """Of which route answers no longer serve, or serve again; nothing of those that it does not touch."""
    found = effects(read(LLM % "" + before), read(LLM % "" + after))

    assert expected == [(effect.route, effect.back) for effect in found]


@pytest.mark.parametrize(
    "after",
    [
        ", headers: {count: [x-a]}",
        ", headers: {ignore: [x-a]}",
        ", credential_headers: [x-a]",
        ", tokens: {ignore_claims: [a]}",
    ],
)
def test_effects_of_a_service(read, after):
    """Where callers or questions are told apart in another way, every route that may take its calls begins anew."""
    found = effects(read(LLM % "" + ROUTE % ""), read(LLM % after + ROUTE % ""))
    taken = {effect.route for effect in found}

    assert {False} == {effect.back for effect in found}
    assert {"team", "chat", "embeddings"} <= taken


@pytest.mark.parametrize(("before", "after"), [(LLM % "", LENT % ""), (LENT % "", LLM % "")])
def test_effects_of_a_region_credential(read, before, after):
    """Where the pod asks, and not its callers any more, or the other way round, only shared answers are found."""
    shared = "routes: [{name: own, match: {service: llm}}, {name: all, match: {service: llm}, cache: {share: service}}]"
    taken = {effect.route for effect in effects(read(before + shared), read(after + shared))}

    assert ("own" in taken, "all" in taken) == (True, False)


@pytest.mark.parametrize(
    ("before", "after", "whole"),
    [
        (", cache: {ttl: 1h}", ", cache: {ttl: 5m}", False),
        (", cache: {ttl: 5m}", ", cache: {ttl: 1h}", False),
        (", cache: {mode: always}", "", False),
        ("", ", cache: {share: service}", True),
        ("", ", cache: {mode: off}", True),
    ],
)
def test_all_or_some(read, before, after, whole):
    """A change that takes some of a route's answers is told apart from one that takes all."""
    [effect] = effects(read(LLM % "" + ROUTE % before), read(LLM % "" + ROUTE % after))

    assert whole == effect.whole


def test_effects_of_a_new_service(read):
    """It has no answers yet, so a route for it takes none away. Where one goes, only routes that cache are named."""
    route = "routes: [{name: only, match: {service: llm}, cache: {ttl: 7m}}]"

    assert [] == effects(read(""), read(LLM % "" + route))
    assert {"only", "chat", "embeddings", "documents", "counts"} == {
        effect.route for effect in effects(read(LLM % "" + route), read(""))
    }


def test_effects_of_a_mode(read):
    """All routes, there and back."""
    plain, off = read(LLM % "" + ROUTE % ""), read(LLM % "" + ROUTE % "" + "mode: cache-off")

    assert ({False}, {True}) == (
        {effect.back for effect in effects(plain, off)}, {effect.back for effect in effects(off, plain)}
    )  # fmt: skip
    assert "team" in {effect.route for effect in effects(plain, off)}
