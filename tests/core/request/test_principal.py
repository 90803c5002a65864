"""Who is asking: one key is one principal however it is sent, and a name is nobody until the service says so."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.http.headers import CREDENTIALS
from sidecar.core.key.fingerprint import partition_of
from sidecar.core.request.principal import (
    ACCEPTED_SECONDS,
    Accepted,
    Pod,
    Presented,
    Principal,
    counted_query,
    identify,
    is_empty,
    presented,
    without_credentials,
)
from sidecar.core.request.roles import Roles
from sidecar.core.rules import Region, Service, Share, TokenRule
from sidecar.dialects import DIALECTS
from tests.core.request.credentials import NOW, SECRETIVE, jwt

OPENAI, AZURE, ANTHROPIC, GENERIC = (DIALECTS[n] for n in ("openai", "azure-openai", "anthropic", "generic"))
OWN = Share()
SERVICE = Share("service")
TEAM = Share("header", "x-team")
ENTRA = "https://login.microsoftonline.com/tenant/v2.0"


def digest(*parts):
    return partition_of(b"secret", *parts)


VENDORS = {
    "openai": "https://eu.api.openai.com",
    "azure-openai": "https://contoso.openai.azure.com",
    "anthropic": "https://api.anthropic.com",
    "generic": "https://generic.example",
}
GATEWAY = "https://gateway.example"


def service_of(dialect, url=None, **how):
    return Service("s", dialect, (Region("r", url or VENDORS[dialect.name]),), **how)


def who(fields, query=b"", *, dialect=AZURE, share=OWN, pod=None, url=None, verify=lambda _: None, **how):
    service = service_of(dialect, url, **how)
    return identify(digest, service, Roles(service), share, fields, query, pod=pod, verify=verify)


def shown(dialect, fields, query=b""):
    return presented(dialect, Roles(service_of(dialect)), fields, query)


def bearer(token):
    return {b"authorization": b"Bearer " + token}


@pytest.mark.parametrize(
    ("dialect", "fields", "query"),
    [
        (AZURE, {b"api-key": b"k"}, b""),
        (AZURE, {b"authorization": b"bearer k"}, b""),
        (AZURE, {b"authorization": b"BEARER   k "}, b""),
        (AZURE, {b"ocp-apim-subscription-key": b"k"}, b""),
        (AZURE, {b"api-key": b"k", b"authorization": b"Bearer k"}, b""),
        (AZURE, {}, b"a=1&api-key=k"),
        (AZURE, {}, b"API%2DKEY=k"),
        (AZURE, {b"api-key": b"k", b"x-ms-client-request-id": b"other"}, b"subscription-key=k"),
        (ANTHROPIC, {b"x-api-key": b"k"}, b""),
    ],
)
def test_one_key_is_one_principal(dialect, fields, query):
    """However a key is sent, who sends it is the same; a key is its own proof."""
    expected = who(bearer(b"k"), dialect=dialect)
    found = who(fields, query, dialect=dialect)

    assert (expected.partition, expected.credential) != (b"", b"")
    if dialect is AZURE:
        assert expected == found

    assert not found.needs_proof
    assert not found.local


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {b"api-key": b"K"},
        {b"api-key": b"k2"},
        {b"api-key": b"k", b"authorization": b"Bearer k2"},
        {b"api-key": b"k2", b"authorization": b"Bearer k"},
        {b"authorization": b"Basic k"},
        {b"authorization": b"Bearer k, Bearer k2"},
    ],
)
def test_other_principals(fields):
    """Another key, or a second one beside it, is somebody else."""
    first, other = who({b"api-key": b"k"}), who(fields)

    assert first.partition != other.partition
    assert first.credential != other.credential


VALUES = st.binary(min_size=1, max_size=4).filter(lambda value: value == value.strip())
"""Of header fields: none begins or ends with a blank (RFC 9110, 5.5)."""


@given(
    st.lists(VALUES, max_size=3, unique=True),
    st.lists(VALUES, max_size=3, unique=True),
    st.tuples(st.sampled_from([b"", b"a", b"b"]), st.sampled_from([b"", b"a", b"b"])),
    st.tuples(st.sampled_from([b"", b"a", b"b"]), st.sampled_from([b"", b"a", b"b"])),
)
def test_never_confused(keys, others, scopes, other_scopes):
    """Two callers are one principal only where all their keys and scopes are the same."""
    headers = (b"authorization", b"api-key", b"x-api-key")

    def ask(keys, scopes):
        fields = {b"openai-organization": scopes[0], b"openai-project": scopes[1]}
        dialect = OPENAI.__class__(
            **{name: getattr(OPENAI, name) for name in OPENAI.__slots__} | {"credentials": headers}
        )
        return who(fields | dict(zip(headers, keys, strict=False)), dialect=dialect)

    same = sorted(keys) == sorted(others) and scopes == other_scopes

    assert same == (ask(keys, scopes).partition == ask(others, other_scopes).partition)


@pytest.mark.parametrize("scope", [b"openai-organization", b"openai-project"])
def test_scopes(scope):
    """One key in two organisations or projects is two principals, for tokens as well."""
    for credential in (b"k", jwt()):
        one, two = (who(bearer(credential) | {scope: name}, dialect=OPENAI) for name in (b"a", b"b"))

        assert one.partition != two.partition
        assert one.credential != two.credential  # what is accepted with one of them proves nothing with the other

    one, two = (
        who(bearer(b"k") | {scope: b"a"}, dialect=OPENAI) for scope in (b"openai-organization", b"openai-project")
    )

    assert one.partition != two.partition


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({b"x-sort-key": b"basic"}, {b"x-sort-key": b"token"}),
        ({b"x-sort-key": b"basic"}, {}),
        ({b"x-routing-key": b""}, {}),
        ({b"x-plan-auth": b"key"}, {b"x-plan-auth": b"api-key"}),
    ],
)
def test_what_only_looks_like_a_credential(one, two):
    """Its value may be a word that is no credential, and mean something all the same."""
    assert who(DUMMY | one).partition != who(DUMMY | two).partition


def test_cookies_are_part_of_what_is_proven():
    """A service that takes a cookie has not looked at the token beside it: that is not accepted by the same answer."""
    with_cookie, without = (who(bearer(jwt()) | cookie, dialect=OPENAI) for cookie in ({b"cookie": b"s=1"}, {}))

    assert with_cookie.credential != without.credential


def test_token():
    """A token names its subject; a rotated one the same, but with nothing proved yet."""
    first, rotated = who(bearer(jwt())), who(bearer(jwt(exp=NOW + 999, jti="2")))

    assert first.partition == rotated.partition
    assert first.credential != rotated.credential
    assert first.needs_proof
    assert (NOW + 600, NOW + 999) == (first.expires, rotated.expires)
    assert first.partition != who({b"api-key": b"k"}).partition


@pytest.mark.parametrize("change", [{"iss": "https://other"}, {"tid": "t2"}, {"sub": "other"}, {"tid": ""}])
def test_other_subjects(change):
    """Issuer, tenant and subject all count."""

    assert who(bearer(jwt())).partition != who(bearer(jwt(**change))).partition


@pytest.mark.parametrize(
    "value",
    [
        b"a.b.c",
        b"a.b",
        jwt() + b".x",
        jwt(header=b'{"typ":"JWT"}'),
        jwt(header=b"[]"),
        jwt([1]),
        jwt(b"\xff"),
        jwt(b"{"),
        jwt(b"[" * 2000),
        jwt(sub=""),
        jwt(sub=1),
        jwt(iss=None),
        jwt(iss=""),
        jwt(exp="soon"),
        jwt(exp=True),
        jwt(exp=10**400),
        jwt(exp=-(10**400)),
        jwt(pad="x" * 20_000),
        jwt({}),
    ],
)
def test_no_token(value):
    """What cannot be read as a token is a key: it stands for itself alone."""
    found = who(bearer(value))

    assert not found.needs_proof
    assert 0.0 == found.expires
    assert found.partition != who(bearer(jwt())).partition
    assert found.partition != who(bearer(value + b"2")).partition


def test_token_beside_a_key():
    """Two credentials are both what was proved; a token among them names nobody."""
    both = who(bearer(jwt()) | {b"api-key": b"k"})

    assert not both.needs_proof
    assert both.partition not in {who(bearer(jwt())).partition, who({b"api-key": b"k"}).partition}


@pytest.mark.parametrize(
    ("issuer", "expected"),
    [
        (ENTRA, True),
        ("https://sts.windows.net/tenant/", True),
        ("https://LOGIN.microsoftonline.US/t", True),
        ("https://login.microsoftonline.com.evil.com/t", False),
        ("https://evil.com/login.microsoftonline.com", False),
        ("login.microsoftonline.com", False),
        ("https://accounts.google.com", False),
        (7, False),
    ],
)
@pytest.mark.parametrize("name", [b"authorization", b"api-key", b"x-api-key"])
def test_microsoft(issuer, expected, name):
    """Tokens that Microsoft issued are known by their issuer, in any field, whoever they name, beside a key too."""
    for claims in ({"iss": issuer, "sub": "app"}, {"iss": issuer}):
        fields = {name: jwt(claims)} if name != b"authorization" else bearer(jwt(claims))

        assert expected == who(fields, dialect=OPENAI).microsoft
        assert expected == who({b"x-goog-api-key": b"k"} | fields, dialect=OPENAI).microsoft


def test_share_by_service():
    """All who share a service share a partition, once the service has accepted each."""
    one, two = who({b"api-key": b"1"}, share=SERVICE), who({b"api-key": b"2"}, share=SERVICE)

    assert one.partition == two.partition
    assert one.credential != two.credential
    assert one.needs_proof
    assert two.needs_proof


def test_share_by_header():
    """A header names the partition; who does not send it shares with nobody."""
    docs, same, other, none, none2 = (
        who(fields | {b"api-key": key}, share=TEAM)
        for fields, key in (
            ({b"x-team": b"docs"}, b"1"),
            ({b"x-team": b"docs"}, b"2"),
            ({b"x-team": b"ops"}, b"1"),
            ({}, b"1"),
            ({}, b"2"),
        )
    )

    assert docs.partition == same.partition
    assert 4 == len({docs.partition, other.partition, none.partition, none2.partition})
    assert docs.needs_proof
    assert none.partition == who({b"api-key": b"1"}).partition


def test_pod():
    """Where the region supplies the credential, the workload asks, whatever the application sent along."""
    pod = Pod("team", "app", b"process")
    found = who({b"api-key": b"1"}, pod=pod)

    assert found.partition == who(bearer(jwt()), pod=Pod("team", "app", b"other")).partition
    assert found.partition != who({}, pod=Pod("team", "app2", b"process")).partition
    assert found.partition != who({}, pod=Pod("team2", "app", b"process")).partition
    assert not found.needs_proof
    assert not found.local
    assert not who({}, pod=pod, share=SERVICE).needs_proof


@pytest.mark.parametrize(("namespace", "account"), [("", ""), ("team", ""), ("", "app")])
def test_pod_without_identity(namespace, account):
    """A workload without a name is this process alone."""
    one, two = (who({}, pod=Pod(namespace, account, process)) for process in (b"1", b"2"))

    assert one.partition != two.partition
    assert one.local


def test_kinds_of_partitions_are_apart():
    """No way of sharing can be made to name another way's partition."""
    found = [
        who({b"api-key": b"service"}),
        who({}, share=SERVICE),
        who({b"x-team": b"service"}, share=TEAM),
        who({}, pod=Pod("service", "x")),
        who({}),
        who(bearer(jwt())),
    ]

    assert len(found) == len({principal.partition for principal in found})


def test_presented():
    """Every credential counts, without its scheme, once."""
    fields = {b"authorization": b"Bearer b", b"api-key": b"a", b"x-goog-api-key": b"b", b"x-other": b"c"}

    assert (b"a", b"b", b"q") == shown(GENERIC, fields, b"key=q&key=&keys=z&x=key").values
    assert Presented((b"a",), (), ()) == shown(OPENAI, {b"api-key": b"a", b"authorization": b""}, b"key=q")


@pytest.mark.parametrize("name", sorted(CREDENTIALS))
def test_key_in_another_field(name):
    """A key in a field that this API does not read (a gateway may) still tells callers apart."""
    one, two = (who({name: key}, dialect=OPENAI) for key in (b"one", b"two"))

    assert one.partition != two.partition
    assert not one.anonymous


def test_cookies_tell_callers_apart():
    """A session is somebody's, beside the same key and beside a region's own credential."""
    key = {b"authorization": b"Bearer k"}
    for pod in (None, Pod("team", "app")):
        one, two = (who({**key, b"cookie": value}, pod=pod) for value in (b"alice", b"bob"))

        assert one.partition != two.partition


def test_anonymous():
    """Without a credential, a region's or a shared partition, nobody can tell whose a call is."""

    assert who({}).anonymous
    assert not who({}, share=SERVICE).anonymous
    assert not who({}, pod=Pod("team", "app")).anonymous


def test_accepted_elsewhere():
    """What one resource of a service accepts proves nothing at another."""
    accepted, principal = Accepted(), who(bearer(jwt()))
    accepted.note("azure/mine", principal, 1.0, 1.0)

    assert accepted.knows("azure/mine", principal, 2.0, 2.0)
    assert not accepted.knows("azure/victim", principal, 2.0, 2.0)


def test_without_credentials():
    """The query members of a credential go, the rest stays byte for byte."""
    names = frozenset({"key"})

    assert b"/a%20//b?x=%2f&&y" == without_credentials(b"/a%20//b?x=%2f&&K%65y=1&y", names)
    assert b"/a?" == without_credentials(b"/a?", names)
    assert b"/a?key=1" == without_credentials(b"/a?key=1", frozenset())


DAY = 86_400.0


def principal_of(*, shared=False, expires=0.0, credential=b"c"):
    return Principal(b"p", credential, needs_proof=True, shared=shared, expires=expires)


TOKEN = principal_of(expires=NOW + 600)


@pytest.mark.parametrize(
    ("principal", "until"),
    [
        pytest.param(TOKEN, NOW + 600, id="a token, until it ends"),
        pytest.param(principal_of(expires=NOW + DAY), NOW + DAY, id="a token of a day, until it ends"),
        pytest.param(principal_of(), NOW + ACCEPTED_SECONDS, id="a token without an end"),
        pytest.param(principal_of(shared=True), NOW + ACCEPTED_SECONDS, id="a key that shares"),
        pytest.param(
            principal_of(shared=True, expires=NOW + 600), NOW + 600, id="a token that shares, and ends sooner"
        ),
        pytest.param(principal_of(shared=True, expires=NOW + DAY), NOW + ACCEPTED_SECONDS, id="or later"),
        pytest.param(principal_of(expires=NOW - 1), NOW - 1, id="ended already"),
    ],
)
def test_accepted(principal, until):
    """An acceptance counts for this service and credential, for its time."""
    accepted = Accepted()

    assert not accepted.knows("s", principal, NOW, NOW)

    accepted.note("s", principal, NOW, NOW)

    assert (NOW < until) == accepted.knows("s", principal, NOW, NOW)
    assert not accepted.knows("s", principal, until, until)
    assert accepted.knows("s", principal, until - 0.5, until - 0.5)
    assert not accepted.knows("other", principal, NOW, NOW)
    assert not accepted.knows("s", principal_of(credential=b"forged"), NOW, NOW)


@pytest.mark.parametrize("principal", [principal_of(), principal_of(shared=True)], ids=["no end", "shared"])
def test_accepted_again(principal):
    """What counts is when the service last accepted."""
    accepted = Accepted()
    accepted.note("s", principal, NOW, NOW)
    accepted.note("s", principal, NOW + 600, NOW + 600)

    assert accepted.knows("s", principal, NOW + ACCEPTED_SECONDS, NOW + ACCEPTED_SECONDS)
    assert not accepted.knows("s", principal, NOW + 600 + ACCEPTED_SECONDS, NOW + 600 + ACCEPTED_SECONDS)


def test_accepted_for_one_partition_and_another():
    """One token by way of two routes: its own partition stands to its end, the shared one for a quarter of an hour."""
    accepted = Accepted()
    accepted.note("s", principal_of(shared=True, expires=NOW + DAY), NOW, NOW)
    later = NOW + ACCEPTED_SECONDS

    assert accepted.knows("s", principal_of(expires=NOW + DAY), later, later)
    assert not accepted.knows("s", principal_of(shared=True, expires=NOW + DAY), later, later)


def test_withdrawn():
    """A credential that the service refuses is not accepted any more."""
    accepted = Accepted()
    accepted.note("s", TOKEN, NOW, NOW)
    accepted.withdraw("other", TOKEN)

    assert accepted.knows("s", TOKEN, NOW, NOW)

    accepted.withdraw("s", TOKEN)
    accepted.withdraw("s", TOKEN)

    assert not accepted.knows("s", TOKEN, NOW, NOW)


def test_nothing_to_prove():
    """A caller that proves itself is known and not remembered."""
    accepted = Accepted()
    accepted.note("s", Principal(b"p", b"c"), NOW, NOW)

    assert accepted.knows("s", Principal(b"p", b"c"), NOW, NOW)
    assert "<Accepted 0 credentials>" == repr(accepted)


def test_accepted_is_bounded():
    """Too many acceptances push out the oldest."""
    accepted = Accepted(limit=2)
    callers = [principal_of(credential=credential) for credential in (b"1", b"2", b"1", b"3")]
    for caller in callers:
        accepted.note("s", caller, NOW, NOW)

    assert [True, False, True] == [
        accepted.knows("s", caller, NOW, NOW) for caller in (callers[0], callers[1], callers[3])
    ]


@pytest.mark.parametrize(
    ("share", "fields", "expected"),
    [
        (OWN, bearer(jwt()), (True, False)),
        (SERVICE, bearer(jwt()), (True, True)),
        (SERVICE, {b"api-key": b"k"}, (True, True)),
        (TEAM, {b"api-key": b"k", b"x-team": b"docs"}, (True, True)),
        (OWN, {b"api-key": b"k"}, (False, False)),
        (TEAM, {b"api-key": b"k"}, (False, False)),
        (TEAM, bearer(jwt()), (True, False)),
    ],
    ids=["own token", "token of many", "key of many", "a team", "own key", "key of no team", "token of no team"],
)
def test_shared(share, fields, expected):
    """A partition that is not the caller's own is marked as such, and needs a proof however it is asked for."""
    principal = who(fields, share=share)

    assert expected == (principal.needs_proof, principal.shared)


# ---- every field that looks like a credential ----


DUMMY = {b"authorization": b"Bearer sk-the-same-for-all"}


@pytest.mark.parametrize("url", [None, GATEWAY], ids=["vendor", "gateway"])
@pytest.mark.parametrize("dialect", [OPENAI, AZURE, ANTHROPIC, GENERIC], ids=lambda dialect: dialect.name)
@pytest.mark.parametrize("name", SECRETIVE)
def test_whatever_looks_like_a_credential(name, dialect, url):
    """Callers that differ in it are two, with a key that all of them send beside it; nobody is anonymous by it."""
    one, two, none = (
        who({**DUMMY, **fields}, dialect=dialect, url=url)
        for fields in ({name.encode(): b"tenant-1"}, {name.encode(): b"tenant-2"}, {})
    )

    assert 3 == len({one.partition, two.partition, none.partition})
    assert 3 == len({one.credential, two.credential, none.credential})
    assert not who({name.encode(): b"tenant-1"}, dialect=dialect, url=url).anonymous


def test_a_service_names_more_of_them():
    """What a service's owner calls a credential is one."""
    one, two = (
        who({**DUMMY, b"x-badge": badge}, dialect=OPENAI, credential_headers=frozenset({b"x-badge"}))
        for badge in (b"1", b"2")
    )

    assert one.partition != two.partition
    assert who(DUMMY | {b"x-badge": b"1"}, dialect=OPENAI).partition == who(DUMMY, dialect=OPENAI).partition


@pytest.mark.parametrize("name", [b"x-user", b"x-forwarded-user-info", b"x-context"])
@pytest.mark.parametrize("url", [None, GATEWAY], ids=["vendor", "gateway"])
def test_a_token_in_any_field(name, url):
    """A token is a credential in whichever field it stands; where nobody can vouch for it, it counts as it is."""
    one, same, two = (who({**DUMMY, name: jwt(sub=sub)}, url=url).partition for sub in ("a", "a", "b"))

    assert one == same != two
    assert not who({name: b"Bearer " + jwt()}).anonymous


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b" ",
        b"Bearer",
        b"bearer",
        b"BEARER ",
        b"Basic",
        b"Basic Og==",
        b"basic  Og==",
        b"token",
        b"ApiKey",
        b"Key",
        b"null",
        b"Bearer null",
        b"Bearer undefined",
        b"bearer None",
        b'Bearer ""',
    ],
)
def test_an_empty_credential_is_none(value):
    """A scheme without anything behind it proves nothing, whichever field it stands in."""
    for name in (b"authorization", b"api-key", b"x-auth-token", b"x-litellm-key"):
        found = who({name: value})

        assert found.anonymous
    for name in (b"authorization", b"api-key"):
        assert who({name: value}).partition == who({}).partition

    assert is_empty(value)
    assert not is_empty(b"Bearer x")


@pytest.mark.parametrize(
    ("fields", "query"),
    [
        ({b"authorization": b"AWS4-HMAC-SHA256 Credential=AKID/20261130/us-east-1/bedrock/aws4_request"}, b""),
        ({b"authorization": b"AWS4-ECDSA-P256-SHA256 Credential=A"}, b""),
        ({b"authorization": b"aws AKID:c2ln"}, b""),
        ({b"authorization": b"SharedKey account:c2ln"}, b""),
        ({b"authorization": b"HMAC-SHA256 Credential=id&SignedHeaders=date&Signature=c2ln"}, b""),
        ({b"authorization": b"GOOG4-RSA-SHA256 Credential=x"}, b""),
        ({b"authorization": b"TC3-HMAC-SHA256 Credential=x"}, b""),
        ({b"authorization": b'Signature keyId="k",signature="c2ln"'}, b""),
        ({b"authorization": b'OAuth oauth_consumer_key="k", oauth_signature="c2ln"'}, b""),
        ({b"authorization": b"DPoP token", b"dpop": b"proof"}, b""),
        ({b"authorization": b"Bearer k", b"signature-input": b"sig1=()", b"signature": b"sig1=:c2ln:"}, b""),
        ({b"x-forwarded-authorization": b"AWS4-HMAC-SHA256 Credential=A"}, b""),
        ({b"authorization": b"Bearer k"}, b"a=1&X-Amz-Signature=c2ln"),
        ({b"authorization": b"Bearer k"}, b"X-Goog-Signature=c2ln&a=1"),
        ({b"authorization": b"Bearer k"}, b"AWSAccessKeyId=AKID&Expires=1&Signature=c2ln"),
        ({b"authorization": b"Bearer k"}, b"a;signature=c2ln"),
        ({b"authorization": b"Bearer k"}, b"X-Obs-Signature=c2ln"),
        ({b"authorization": b"Bearer k"}, b"x-volc-signature=c2ln"),
        ({b"authorization": b"Bearer k"}, b"X-TOS-SIGNATURE=c2ln"),
        ({b"authorization": b"Bearer k"}, b"X%2DAmz%2dSignature=c2ln"),
        ({b"authorization": b"Bearer k"}, b"a=1&%58-Amz-Signatur%65=c2ln"),
        ({b"authorization": b"Bearer k"}, b"q-sign-algorithm=sha1&q-signature=c2ln"),
        ({b"authorization": b"Bearer k"}, b"sv=2024-01-01&se=2026&sig=c2ln"),
        ({b"authorization": b"bce-auth-v1/AKID/2026-11-30T00:00:00Z/1800/host/c2ln"}, b""),
        ({b"authorization": b"OSS AKID:c2ln"}, b""),
        ({b"authorization": b"OSS4-HMAC-SHA256 Credential=AKID"}, b""),
        ({b"authorization": b"OBS AKID:c2ln"}, b""),
        ({b"authorization": b"COS AKID:c2ln"}, b""),
        ({b"authorization": b"q-sign-algorithm=sha1&q-ak=AKID&q-signature=c2ln"}, b""),
        ({b"authorization": b"VOLC-HMAC-SHA256 Credential=AKID"}, b""),
        ({b"authorization": b"JDCLOUD2-HMAC-SHA256 Credential=AKID"}, b""),
        ({b"authorization": b"hmac username=u, signature=c2ln"}, b""),
        ({b"authorization": b"AWS3-HTTPS AWSAccessKeyId=AKID,Signature=c2ln"}, b""),
        ({b"authorization": b"SharedAccessSignature sr=a&sig=c2ln"}, b""),
        ({b"authorization": b"acme_sha-512 id c2ln"}, b""),
        ({b"authorization": b"XSignatureV9\tc2ln"}, b""),
    ],
)
def test_a_signature_proves_nothing_here(fields, query):
    """Only the service can check a caller's signature; where the region brings the credential, nobody needs to."""

    assert who(fields, query, dialect=GENERIC).signed
    assert not who(fields, query, dialect=GENERIC, pod=Pod("team", "app")).signed


@pytest.mark.parametrize(
    "value",
    [
        b"Bearer aws4-hmac",
        b"Bearer hmac sha256",
        b"OAuth y0_token",
        b"Basic dTpw",
        b"signature-key-1",
        b"sk-mac",
        b"sk-hmac-sha256",
        b"cosmos key",
        b"key q-sign-algorithm=sha1",
        b"bce-auth-v1",
    ],
)
def test_other_credentials_are_no_signatures(value):
    """A bearer's credential is the same on each call."""

    assert not who({b"authorization": value}, b"x-amz-signature-version=4&design=signature&x-signatures=1").signed


@pytest.mark.parametrize("value", [b"a" * 60_000, b"a-" * 30_000, b"hmac" * 15_000, b"oauth " + b"oauth_" * 10_000])
def test_a_long_credential_is_looked_through_once(value):
    """Steps of the search grow with the value, and not with its square: else this would take minutes."""

    assert not who({b"authorization": value}, value + b"=").signed


# ---- who a token is ----

ENTRA_CLAIMS = {
    "aud": "https://cognitiveservices.azure.com", "iss": ENTRA, "tid": "t", "sub": "s", "oid": "o", "appid": "a",
    "idtyp": "app", "roles": ["r1", "r2"], "ver": "1.0",
}  # fmt: skip
CHANGES = {
    "exp": NOW + 9000, "iat": NOW, "nbf": NOW - 5, "jti": "j", "nonce": "n", "auth_time": NOW, "uti": "u", "aio": "a",
    "rh": "r", "sid": "s", "ipaddr": "10.0.0.1", "xms_ftd": "x", "xms_mirid": "y",
}  # fmt: skip


def test_two_tokens_of_one_managed_identity():
    """Hours apart they differ in what is documented to change, and name one principal."""
    first, later = (jwt({**ENTRA_CLAIMS, **CHANGES, "exp": NOW + n, "iat": NOW + n, "uti": str(n)}) for n in (1, 7200))

    assert who(bearer(first)).partition == who(bearer(later)).partition
    assert who(bearer(first)).credential != who(bearer(later)).credential


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_what_changes_from_token_to_token(name):
    """Each of these claims splits nobody, whatever its value and whether it is there."""
    base = {**ENTRA_CLAIMS, "exp": NOW + 600}
    values = [NOW + 1, NOW + 2] if name in {"exp", "iat", "nbf", "auth_time"} else ["1", "2"]
    found = [who(bearer(jwt(base)))] + [who(bearer(jwt(base | {name: value}))) for value in values]

    assert 1 == len({principal.partition for principal in found})


@pytest.mark.parametrize(
    ("name", "one", "two"),
    [
        ("org_id", "o1", "o2"),
        ("organization", "o1", "o2"),
        ("act", {"sub": "service-1"}, {"sub": "service-2"}),
        ("azp", "a1", "a2"),
        ("aud", "one", "two"),
        ("aud", "one", ["one"]),
        ("roles", ["reader"], ["reader", "writer"]),
        ("scp", "read", "read write"),
        ("groups", ["g1"], ["g2"]),
        ("level", 1, 1.0),
        ("level", 1, "1"),
        ("level", 1, True),
        ("made-up", None, ""),
        ("deep", {"a": [{"b": 1}]}, {"a": [{"b": 2}]}),
        ("kubernetes.io", {"namespace": "a"}, {"namespace": "b"}),
        ("kubernetes.io", {"serviceaccount": {"uid": "1"}}, {"serviceaccount": {"uid": "2"}}),
    ],
)
def test_every_other_claim_counts(name, one, two):
    """One issuer and subject is not yet one caller."""
    found = [who(bearer(jwt(ENTRA_CLAIMS | more))) for more in ({name: one}, {name: two}, {})]

    assert len(found[0].claims) >= len(ENTRA_CLAIMS)
    assert 2 <= len({principal.partition for principal in found})
    assert found[0].partition != found[1].partition


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def as_sets(value):
    """A claim's value as it counts: arrays without order and repetition."""
    if isinstance(value, list):
        return ("set", frozenset(map(as_sets, value)))
    if isinstance(value, dict):
        return ("table", frozenset((name, as_sets(inner)) for name, inner in value.items()))
    return (type(value).__name__, value)


@given(JSON, JSON)
def test_claims_are_compared_as_they_count(one, two):
    """Two tokens name one caller exactly where their claims are the same but for the order of arrays."""
    first, second = (who(bearer(jwt(ENTRA_CLAIMS | {"claim": value}))).partition for value in (one, two))

    assert (as_sets(one) == as_sets(two)) == (first == second)


def test_arrays_are_sets():
    """Roles are told in any order."""
    orders = (["a", "b"], ["b", "a"], ["a", "b", "a"])

    assert 1 == len({who(bearer(jwt(ENTRA_CLAIMS | {"roles": roles}))).partition for roles in orders})


def test_a_pod_of_kubernetes():
    """The pod's uid and the time of a warning change from pod to pod, and from token to token."""
    base = {"iss": "https://kubernetes.default.svc", "sub": "system:serviceaccount:team:app", "aud": ["vault"]}
    claim = {"namespace": "team", "serviceaccount": {"name": "app", "uid": "sa"}, "pod": {"name": "app-0", "uid": "1"}}
    other = claim | {"pod": {"name": "app-0", "uid": "2"}, "warnafter": 5}
    found = {who(bearer(jwt(base | {"kubernetes.io": each}))).partition for each in (claim, other)}

    assert 1 == len(found)


def test_ignored_claims():
    """A service may say of more claims that they change."""
    rule = TokenRule(ignore_claims=frozenset({"visit"}))
    one, two = (who(bearer(jwt(ENTRA_CLAIMS | {"visit": n})), tokens=rule) for n in (1, 2))

    assert one.partition == two.partition
    assert "visit" not in one.claims


@pytest.mark.parametrize(
    "claims",
    [
        b'{"iss":"i","sub":"a","sub":"victim"}',
        b'{"iss":"i","sub":"victim","roles":["a"],"roles":["b"]}',
        b'{"iss":"i","sub":"victim","act":{"sub":"x","sub":"y"}}',
        b'{"iss":"i","sub":"victim","n":-0}',
        b'{"iss":"i","sub":"victim","n":NaN}',
        b'{"iss":"i","sub":"\\ud800"}',
    ],
)
def test_a_claim_said_twice(claims):
    """What two readers might take for two callers names nobody."""
    found = who(bearer(jwt(claims)))

    assert not found.needs_proof
    assert () == found.claims


# ---- where a token's name counts ----


def test_elsewhere_a_token_is_a_key():
    """A gateway may check nothing, so its callers' tokens are told apart byte for byte, and need no proof."""
    first, rotated = (who(bearer(jwt(jti=n)), url=GATEWAY) for n in ("1", "2"))

    assert first.partition != rotated.partition
    assert not first.needs_proof
    assert 0.0 == first.expires


@pytest.mark.parametrize(
    "fields",
    [
        {b"api-key": b"k"},
        {b"x-goog-api-key": b"k"},
        {b"ocp-apim-subscription-key": jwt(sub="another")},
    ],
)
def test_beside_another_key_a_token_names_nobody(fields):
    """Which of the two the vendor has judged is its secret."""
    found = who({**bearer(jwt()), **fields})

    assert not found.needs_proof
    assert found.partition != who({**bearer(jwt(jti="2")), **fields}).partition


def test_where_the_vendor_does_not_look():
    """A token beside the vendor's own key, in a field that the vendor passes over, is anybody's forgery."""
    fields = {b"authorization": b"Bearer sk-shared-by-all", b"x-user-token": jwt(sub="victim")}
    forged = fields | {b"x-user-token": jwt(sub="victim", jti="forged")}

    assert who(fields, dialect=OPENAI).partition != who(forged, dialect=OPENAI).partition


def test_other_credentials_count_beside_it():
    """A token names its caller, and what else comes along belongs to the caller, too."""
    one, same, two = (
        who({**bearer(jwt(jti=jti)), b"x-functions-key": key}) for jti, key in (("1", b"a"), ("2", b"a"), ("1", b"b"))
    )

    assert one.partition == same.partition != two.partition
    assert one.needs_proof


VERIFIED = TokenRule(issuer="https://issuer", audience="us", jwks_file="/keys")


def verify(value):
    """Whoever checks signatures here takes those that say so."""
    return json.loads(base64.urlsafe_b64decode(value.split(b".")[1] + b"==")) if value.endswith(b".good") else None


@pytest.mark.parametrize("name", [b"authorization", b"x-user", b"x-auth-token"])
def test_verified_here(name):
    """A token that was verified is who it says, at any host and in any field, as long as it lasts."""
    first, rotated = (jwt(jti=n, signature=b"good") for n in ("1", "2"))
    one, two = (who({name: token}, url=GATEWAY, tokens=VERIFIED, verify=verify) for token in (first, rotated))
    forged = who({name: jwt()}, url=GATEWAY, tokens=VERIFIED, verify=verify)

    assert one.partition == two.partition != forged.partition
    assert one.verified
    assert not forged.verified
    assert Accepted().knows("s", one, NOW + 599, NOW + 599)
    assert not Accepted().knows("s", one, NOW + 600, NOW + 600)


# ---- cookies and queries ----


@pytest.mark.parametrize(
    "cookie",
    [
        "__cf_bm=a.b-c", "_cfuvid=1", "__cflb=0", "AWSALB=x", "AWSALBCORS=x", "AWSALBTG=x", "ARRAffinity=1",
        "ARRAffinitySameSite=1", "__cf_bm=1; _cfuvid=2; AWSALB=3",
    ],
)  # fmt: skip
def test_cookies_of_load_balancers(cookie):
    """They find a server again and name nobody, alone and beside a session."""
    for before in ("", "session=alice; "):
        without = {b"cookie": before.removesuffix("; ").encode()} if before else {}

        assert who({**DUMMY, b"cookie": (before + cookie).encode()}).partition == who({**DUMMY, **without}).partition


@pytest.mark.parametrize(
    "cookie",
    [
        b"session=a", b"x__cf_bm=1", b"__cf_bmx=1", b"__cf_bm=1, session=a", b'__cf_bm="1; session=a"', b"awsalb=1",
        b"__cf_bm", b"ARRAffinity2=1", b"__cf_bm=1;session=a",
    ],
)  # fmt: skip
def test_other_cookies(cookie):
    """Whatever else there is tells callers apart."""

    assert who({**DUMMY, b"cookie": cookie}).partition != who(DUMMY).partition


@given(
    st.lists(st.sampled_from([b"a=1", b"%61=2", b"", b"key=k", b"KEY=K", b"k%65y=1", b"a=2", b"=", b"b"]), max_size=5)
)
def test_a_query_counts_as_it_is_written(members):
    """Order, case, escapes and empty members count; what carries a credential is the caller's instead."""
    query = b"&".join(members)
    kept = [member for member in members if member.partition(b"=")[0].lower() not in {b"key", b"k%65y"}]

    assert b"&".join(kept) == counted_query(query, frozenset({"key"}))
    assert query == counted_query(query, frozenset())


def test_a_semicolon_is_no_separator_in_the_key():
    """What a service may take for a part of a value counts, whatever it looks like."""

    assert b"a=1;key=x" == counted_query(b"a=1;key=x", frozenset({"key"}))


@pytest.mark.parametrize("back", [60.0, 3600.0, DAY])
@pytest.mark.parametrize(
    ("principal", "seconds"),
    [(TOKEN, 600.0), (principal_of(), ACCEPTED_SECONDS), (principal_of(shared=True, expires=NOW + 600), 600.0)],
    ids=["token", "no end", "shared"],
)
def test_a_clock_that_is_set_back(principal, seconds, back):
    """No acceptance lasts longer by it."""
    accepted = Accepted()
    accepted.note("s", principal, NOW, 50.0)

    assert accepted.knows("s", principal, NOW - back, 50.0 + seconds - 1)
    assert not accepted.knows("s", principal, NOW - back, 50.0 + seconds)
