"""Who is asking: one key is one principal however it is sent, and a name is nobody until the service says so."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.fingerprint import partition_of
from sidecar.core.headers import CREDENTIALS
from sidecar.core.principal import ACCEPTED_SECONDS, Accepted, Pod, Principal, identify, presented, without_credentials
from sidecar.core.rules import Share
from sidecar.dialects import DIALECTS

OPENAI, AZURE, ANTHROPIC, GENERIC = (DIALECTS[n] for n in ("openai", "azure-openai", "anthropic", "generic"))
NOW = 1_800_000_000.0
OWN = Share()
SERVICE = Share("service")
TEAM = Share("header", "x-team")
ENTRA = "https://login.microsoftonline.com/tenant/v2.0"


def digest(*parts):
    return partition_of(b"secret", *parts)


def segment(claims):
    text = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=")


def jwt(claims=None, *, signature=b"c2ln", header=b'{"alg":"RS256"}', **more):
    """A token; without *claims* one for ``app`` of ``t1``, with *more* changed."""
    claims = {"iss": "https://issuer", "tid": "t1", "sub": "app", "exp": NOW + 600} | more if claims is None else claims
    return b".".join((segment(header), segment(claims), signature))


def who(fields, query=b"", *, dialect=AZURE, share=OWN, pod=None):
    return identify(digest, dialect, share, fields, query, pod=pod)


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
        {b"authorization": b"Bearer"},
    ],
)
def test_other_principals(fields):
    """Another key, or a second one beside it, is somebody else."""
    first, other = who({b"api-key": b"k"}), who(fields)

    assert first.partition != other.partition
    assert first.credential != other.credential


@given(
    st.lists(st.binary(min_size=1, max_size=4), max_size=3, unique=True),
    st.lists(st.binary(min_size=1, max_size=4), max_size=3, unique=True),
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
        assert one.credential == two.credential

    one, two = (
        who(bearer(b"k") | {scope: b"a"}, dialect=OPENAI) for scope in (b"openai-organization", b"openai-project")
    )

    assert one.partition != two.partition


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
        jwt(tid=1),
        jwt(exp="soon"),
        jwt(exp=True),
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

    assert (b"a", b"b", b"q") == presented(GENERIC, fields, b"key=q&key=&keys=z&x=key")
    assert (b"a",) == presented(OPENAI, {b"api-key": b"a", b"authorization": b""}, b"key=q")


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
    accepted.note("azure/mine", principal, now=1.0)

    assert accepted.knows("azure/mine", principal, 2.0)
    assert not accepted.knows("azure/victim", principal, 2.0)


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

    assert not accepted.knows("s", principal, NOW)

    accepted.note("s", principal, now=NOW)

    assert (NOW < until) == accepted.knows("s", principal, NOW)
    assert not accepted.knows("s", principal, until)
    assert accepted.knows("s", principal, until - 0.5)
    assert not accepted.knows("other", principal, NOW)
    assert not accepted.knows("s", principal_of(credential=b"forged"), NOW)


@pytest.mark.parametrize("principal", [principal_of(), principal_of(shared=True)], ids=["no end", "shared"])
def test_accepted_again(principal):
    """What counts is when the service last accepted."""
    accepted = Accepted()
    accepted.note("s", principal, now=NOW)
    accepted.note("s", principal, now=NOW + 600)

    assert accepted.knows("s", principal, NOW + ACCEPTED_SECONDS)
    assert not accepted.knows("s", principal, NOW + 600 + ACCEPTED_SECONDS)


def test_accepted_for_one_partition_and_another():
    """One token by way of two routes: its own partition stands to its end, the shared one for a quarter of an hour."""
    accepted = Accepted()
    accepted.note("s", principal_of(shared=True, expires=NOW + DAY), now=NOW)
    later = NOW + ACCEPTED_SECONDS

    assert accepted.knows("s", principal_of(expires=NOW + DAY), later)
    assert not accepted.knows("s", principal_of(shared=True, expires=NOW + DAY), later)


def test_withdrawn():
    """A credential that the service refuses is not accepted any more."""
    accepted = Accepted()
    accepted.note("s", TOKEN, now=NOW)
    accepted.withdraw("other", TOKEN)

    assert accepted.knows("s", TOKEN, NOW)

    accepted.withdraw("s", TOKEN)
    accepted.withdraw("s", TOKEN)

    assert not accepted.knows("s", TOKEN, NOW)


def test_nothing_to_prove():
    """A caller that proves itself is known and not remembered."""
    accepted = Accepted()
    accepted.note("s", Principal(b"p", b"c"), now=NOW)

    assert accepted.knows("s", Principal(b"p", b"c"), NOW)
    assert "<Accepted 0 credentials>" == repr(accepted)


def test_accepted_is_bounded():
    """Too many acceptances push out the oldest."""
    accepted = Accepted(limit=2)
    callers = [principal_of(credential=credential) for credential in (b"1", b"2", b"1", b"3")]
    for caller in callers:
        accepted.note("s", caller, now=NOW)

    assert [True, False, True] == [accepted.knows("s", caller, NOW) for caller in (callers[0], callers[1], callers[3])]


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
