"""The forms of single values: what they read, what they refuse, and how they say it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.rules import Share
from sidecar.redis_link.address import Address, locate
from sidecar.settings import forms

WORD = forms.choice({"off": 0, "on-demand": 1}, what="rule", later=frozenset({"tomorrow"}))


@pytest.mark.parametrize(
    ("form", "text", "expected"),
    [
        (WORD, "off", 0),
        (WORD, "No", 0),
        (WORD, "FALSE", 0),
        (WORD, "on-demand", 1),
        (forms.ADDRESS, "::1", "::1"),
        (forms.ADDRESS, "LocalHost", "localhost"),
        (forms.HOST, "API.openai.com", "api.openai.com"),
        (forms.NAMESERVER, "10.0.0.10", "10.0.0.10:53"),
        (forms.NAMESERVER, "10.0.0.10:5353", "10.0.0.10:5353"),
        (forms.NAMESERVER, "FD00::a", "[fd00::a]:53"),
        (forms.NAMESERVER, "[fd00::a]:5353", "[fd00::a]:5353"),
        (forms.PREFIX, "/openai/eu/", "/openai/eu"),
        (forms.MATCHED_HEADER, "X-Team", "x-team"),
        (forms.SCHEME, "Bearer ", "Bearer "),
        (forms.SCHEME, "", ""),
        (forms.SHARE, "principal", Share()),
        (forms.SHARE, "service", Share("service")),
        (forms.SHARE, "header:X-Tenant", Share("header", "x-tenant")),
        (forms.URL, "HTTPS://api.example.com/v1/", "https://api.example.com/v1"),
        (forms.URL, "http://[::1]:8080", "http://[::1]:8080"),
        (forms.URL, "https://{resource}.openai.azure.com", "https://{resource}.openai.azure.com"),
        (forms.PROXY, "none", "none"),
        (forms.PROXY, "http://proxy:3128", "http://proxy:3128"),
        (forms.PATTERN, "*/prebuilt-invoice:analyze", "*/prebuilt-invoice:analyze"),
        (forms.SWITCH, "true", True),
        (forms.SWITCH, "Yes", True),
        (forms.SWITCH, "off", False),
        (forms.SWITCH, "FALSE", False),
        (forms.HEDGE, "on", True),
        (forms.HEDGE, "off", False),
        (forms.HEDGE, "true", True),
        (forms.MODEL, "gpt-4o", "gpt-4o"),
        (forms.MODEL, "ft:gpt-4o:org::id/x", "ft:gpt-4o:org::id/x"),
        (forms.DEPLOYMENT, "gpt4o-us", "gpt4o-us"),
        (forms.ID, "00000000-0000-0000-0000-000000000000", "00000000-0000-0000-0000-000000000000"),
        (forms.ID, "contoso.onmicrosoft.com", "contoso.onmicrosoft.com"),
        (forms.SCOPE, "https://ai.azure.com/.default", "https://ai.azure.com/.default"),
        (forms.SCOPE, "api://a-b/.default", "api://a-b/.default"),
        (forms.NAMESPACE, "team-a.v2_x", "team-a.v2_x"),
        (forms.REDIS, "redis://Cache", "redis://cache"),
        (forms.REDIS, "REDISS://cache:6380/0", "rediss://cache:6380/0"),
        (forms.REDIS, "redis://cache:6379/", "redis://cache:6379"),
        (forms.REDIS, "redis://[::1]:6379/15", "redis://[::1]:6379/15"),
        (forms.REDIS, "redis+sentinel://a:26379,b/primary", "redis+sentinel://a:26379,b/primary"),
        (forms.REDIS, "rediss+sentinel://10.0.0.1/Primary/3", "rediss+sentinel://10.0.0.1/Primary/3"),
        (forms.REDIS, "redis+cluster://a:1,b:2,c:3", "redis+cluster://a:1,b:2,c:3"),
        (forms.REDIS, "rediss+cluster://a/", "rediss+cluster://a"),
    ],
)
def test_reads(form, text, expected):
    """What a form accepts has the value that it looks like."""
    value = form.read(text)

    assert expected == value


@pytest.mark.parametrize(
    ("form", "text", "expected"),
    [
        (WORD, "of", '"of" is not a rule; did you mean off?'),
        (WORD, "xyz", '"xyz" is not a rule; use one of off, on-demand'),
        (WORD, "tomorrow", "the rule tomorrow is not supported by this version; use one of off, on-demand"),
        (forms.HOST, "https://a.com", ('"https://a.com" is not a host; give its name alone, without scheme, port, '
         "path or wildcard")),
        (forms.NAMESERVER, "dns.example", '"dns.example" is not a name server; give its IP address, or ADDRESS:PORT'),
        (forms.NAMESERVER, "10.0.0.10,1", '"10.0.0.10,1" is not a name server; give its IP address, or ADDRESS:PORT'),
        (forms.NAMESERVER, "10.0.0.10:0", '"10.0.0.10:0" is not a name server; its port is from 1 to 65535'),
        (forms.NAMESERVER, "fe80::1%eth0", '"fe80::1%eth0" is not a name server; give its IP address, or ADDRESS:PORT'),
        (forms.PREFIX, "openai", '"openai" does not start with /; write "/openai"'),
        (forms.PREFIX, "/", '"/" is not a path prefix; use a form such as /openai'),
        (forms.PREFIX, "/a/../b", '"/a/../b" is not a path prefix; use a form such as /openai'),
        (forms.PREFIX, "/sidecar/jobs", "/sidecar is the sidecar's own; choose another prefix"),
        (forms.PATTERN, "v1/chat", '"v1/chat" matches no path; start it with / or *'),
        (forms.MATCHED_HEADER, "x team", '"x team" is not the name of a header; use letters, digits and hyphens'),
        (forms.CREDENTIAL_HEADER, "Host", "host belongs to the connection; name the header that carries the key"),
        (forms.SCHEME, "Bearer", 'has no space at its end; write "Bearer " in quotes'),
        (forms.SHARE, "everyone", '"everyone" is not a way to share; use principal, service or header:NAME'),
        (forms.SHARE, "header:", '"header:" is not a way to share; use principal, service or header:NAME'),
        (forms.URL, "api.openai.com", '"api.openai.com" is not an http URL; start it with https:// or http://'),
        (forms.URL, "ftp://a", '"ftp://a" is not an http URL; start it with https:// or http://'),
        (forms.URL, "https://", '"https://" is not a URL; check its host and port'),
        (forms.URL, "https://a:99999", '"https://a:99999" is not a URL; check its host and port'),
        (forms.URL, "https://[::1", '"https://[::1" is not a URL; check its host and port'),
        (forms.URL, "https://a/?key=1", "has a query or fragment; keep scheme, host and base path"),
        (forms.URL, "https://a/b c", ('"https://a/b c" has a base path with blanks or other than ASCII; '
         "percent-encode them")),
        (forms.NAME, "a b", '"a b" is not a name; use up to 63 letters, digits, dots, hyphens and underscores'),
        (forms.TAG, "a,b", '"a,b" is not a tag; use up to 64 letters, digits and any of _ . : @ / -'),
        (forms.TEXT, "a\nb", '"a\\nb" is not usable; write 1 to 256 printable characters on one line'),
        (forms.FILE, "", "is not the path of a file; write one path on one line"),
        (forms.SWITCH, "maybe", '"maybe" is neither true nor false; use one of them'),
        (forms.MODEL, "", '"" is not the name of a model; write 1 to 256 visible ASCII characters'),
        (forms.MODEL, "gpt 4", '"gpt 4" is not the name of a model; write 1 to 256 visible ASCII characters'),
        (forms.MODEL, "gpt-4o*", '"gpt-4o*" is a pattern; name one model, as callers name it'),
        (forms.DEPLOYMENT, "a\tb", ('"a\\tb" is not the name of a deployment; write 1 to 256 visible ASCII '
         "characters")),
        (forms.ID, "a..b", ("is not an id; use one such as 00000000-0000-0000-0000-000000000000, and no secret")),
        (forms.ID, "a/b", ("is not an id; use one such as 00000000-0000-0000-0000-000000000000, and no secret")),
        (forms.SCOPE, "https://ai.azure.com", ("is not a scope; write it as "
         "https://cognitiveservices.azure.com/.default")),
        (forms.NAMESPACE, "{a}", ('"{a}" is not a namespace; use up to 64 letters, digits, dots, hyphens, '
         "underscores")),
        (forms.NAMESPACE, "a:b", ('"a:b" is not a namespace; use up to 64 letters, digits, dots, hyphens, '
         "underscores")),
        (forms.REDIS, "cache:6379", ("is not the URL of a Redis; write it as redis://HOST:PORT/0, without query and "
         "fragment")),
        (forms.REDIS, "redis://cache?db=1", ("is not the URL of a Redis; write it as redis://HOST:PORT/0, without "
         "query and fragment")),
        (forms.REDIS, "valkey://cache", ('"valkey" is not a scheme of a Redis; use one of redis, redis+cluster, '
         "redis+sentinel, rediss, rediss+cluster, rediss+sentinel")),
        (forms.REDIS, "redis://", ("has a malformed host or port; write each as HOST or HOST:PORT, with a port "
         "from 1 to 65535")),
        (forms.REDIS, "redis+cluster://a,", ("has a malformed host or port; write each as HOST or HOST:PORT, with "
         "a port from 1 to 65535")),
        (forms.REDIS, "redis://a:0", ("has a malformed host or port; write each as HOST or HOST:PORT, with a port "
         "from 1 to 65535")),
        (forms.REDIS, "redis://a:70000", ("has a malformed host or port; write each as HOST or HOST:PORT, with a "
         "port from 1 to 65535")),
        (forms.REDIS, "redis://a,b", "names several hosts; name one, or use a scheme with +sentinel or +cluster"),
        (forms.REDIS, "redis+sentinel://a", ("does not name what the Sentinels watch; end it with /SERVICE or "
         "/SERVICE/DATABASE")),
        (forms.REDIS, "redis+sentinel://a/b/c", ("does not name what the Sentinels watch; end it with /SERVICE or "
         "/SERVICE/DATABASE")),
        (forms.REDIS, "redis+cluster://a/0", "names a database, and a cluster has none; end it after the hosts"),
        (forms.REDIS, "redis://a/zero", ("has a path that is not the number of a database; end it with /0, or after "
         "the port")),
    ],
)  # fmt: skip
def test_refuses(form, text, expected):
    """What a form refuses is said with its remedy."""
    with pytest.raises(ValueError) as caught:
        form.read(text)

    assert expected == str(caught.value)


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (forms.URL, "https://user:hunter2@a.com"),  # pragma: allowlist secret
        (forms.PROXY, "http://user:hunter2@proxy:3128"),  # pragma: allowlist secret
        (forms.SCHEME, "Bearer hunter2"),
        (forms.FILE, "hunter2\n"),
        (forms.ID, "hunter2~secret"),
        (forms.SCOPE, "hunter2"),
        (forms.REDIS, "redis://:hunter2@cache"),  # pragma: allowlist secret
        (forms.REDIS, "redis://hunter2@cache"),
        (forms.REDIS, "redis://a:hunter2"),
        (forms.REDIS, "redis://hunter2:hunter2/hunter2"),
        (forms.REDIS, "redis://a?password=hunter2"),
    ],
)
def test_keeps_secrets_to_itself(form, text):
    """A message never repeats what may be a secret."""
    with pytest.raises(ValueError) as caught:
        form.read(text)

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("redis://A/", Address("single", False, (("a", 6379),))),
        ("rediss://[::1]:1/15", Address("single", True, (("::1", 1),), database=15)),
        ("redis+sentinel://a,b:2/primary", Address("sentinel", False, (("a", 26379), ("b", 2)), "primary")),
        ("rediss+sentinel://a/x/3", Address("sentinel", True, (("a", 26379),), "x", 3)),
        ("rediss+cluster://a,b/", Address("cluster", True, (("a", 6379), ("b", 6379)))),
    ],
)
def test_what_is_accepted_of_a_redis_is_found_by_the_client(text, expected):
    """The two read a URL alike."""
    assert expected == locate(forms.REDIS.read(text))


@given(st.sampled_from([WORD, *(f for f in vars(forms).values() if isinstance(f, forms.ValueForm))]), st.text())
def test_nothing_but_value_errors_on_one_line(form, text):
    """Whatever is written, a form reads it or says in one line why not."""
    try:
        form.read(text)
    except ValueError as error:
        message = str(error)
    else:
        message = "read; well"

    assert message.isprintable()
    assert "; " in message
