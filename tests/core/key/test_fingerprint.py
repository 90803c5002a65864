"""Keys: what makes two calls one, and that nothing else does."""

import importlib.util
from pathlib import Path

import pytest
import xxhash

from sidecar.core.key import fingerprint as module
from sidecar.core.key.fingerprint import KEY_VERSION, address, fingerprint, partition_of, prefix, seal
from sidecar.core.model import Facts, Reading

HERE = Path(__file__).parent
COLLISIONS = HERE / "../../../shared/data/xxh3"
SECRET = b"s" * 32

spec = importlib.util.spec_from_file_location("golden", HERE / "regenerate_golden.py")
golden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(golden)

CALL = {
    "partition": b"p",
    "service": "openai",
    "resource": "r",
    "endpoint": "chat",
    "method": b"POST",
    "path": "/v1/chat/completions",
    "query": b"a=1",
    "headers": ((b"openai-beta", b"x"), (b"version", b"1")),
    "model": "gpt-4o",
    "reading": Reading(b"json", b"{}", Facts()),
}


def key_of(secret=SECRET, **changed):
    return fingerprint(secret, **(CALL | changed))


def test_key():
    """A key is the same whenever it is made: a proof of 32 bytes, and the address of the proof."""
    key = key_of()

    assert key == key_of()
    assert len(key.proof) == 32
    assert key.address == xxhash.xxh3_128_digest(key.proof)


def test_two_steps():
    """The part before the body can be made once and used again."""
    before = prefix(**{name: value for name, value in CALL.items() if name not in {"model", "reading"}})

    assert key_of() == seal(SECRET, before, CALL["model"], CALL["reading"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("partition", b"q"),
        ("service", "other"),
        ("resource", ""),
        ("endpoint", "embeddings"),
        ("method", b"GET"),
        ("path", "/v1/chat/completions/"),
        ("query", b"a=2"),
        ("headers", ((b"openai-beta", b"x"),)),
        ("headers", ((b"openai-beta", b"1"), (b"version", b"x"))),
        ("headers", ((b"openai-betax", b""), (b"version", b"1"))),
        ("model", "gpt-4o-mini"),
        ("reading", Reading(b"raw", b"{}", Facts())),
        ("reading", Reading(b"json", b"{ }", Facts())),
        ("secret", b"t" * 32),
    ],
)
def test_every_field_counts(name, value):
    """A call that differs in one field has another key."""

    assert key_of() != key_of(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("headers", ((b"version", b"1"), (b"openai-beta", b"x"))),
        ("reading", Reading(b"json", b"{}", Facts(seeded=True))),
    ],
)
def test_what_does_not_count(name, value):
    """The order of distinct headers, and facts, are no part of the key."""

    assert key_of() == key_of(**{name: value})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param({"endpoint": "ab", "path": "c"}, {"endpoint": "a", "path": "bc"}, id="endpoint and path"),
        pytest.param({"partition": b"x", "model": "y"}, {"partition": b"xy", "model": ""}, id="partition and model"),
        pytest.param({"partition": b"xy", "model": ""}, {"partition": b"", "model": "xy"}, id="moved whole"),
        pytest.param({"service": "a", "resource": ""}, {"service": "", "resource": "a"}, id="neighbours"),
        pytest.param({"query": b"a;headers 0:", "headers": ()}, {"query": b"a", "headers": ()}, id="forged"),
        pytest.param(
            {"headers": ((b"a", b"b"), (b"c", b"d"))}, {"headers": ((b"a", b"b1:c;1:d"),)}, id="headers in a header"
        ),
        pytest.param(
            {"model": "m", "reading": Reading(b"json", b"{}", Facts())},
            {"model": "m;json 2:{}", "reading": Reading(b"", b"", Facts())},
            id="body in the model",
        ),
    ],
)
def test_borders(one, other):
    """What stands on either side of a border never runs together."""

    assert key_of(**one) != key_of(**other)


def test_no_key_without_a_partition():
    """The partition cannot be left out."""
    without = {name: value for name, value in CALL.items() if name != "partition"}
    with pytest.raises(TypeError, match="partition"):
        fingerprint(SECRET, **without)


def test_bytes_that_are_no_utf8():
    """A path may hold any bytes, taken over as surrogates."""

    assert key_of(path=b"/\xff".decode("utf-8", "surrogateescape")) != key_of(path="/\xfe")


@pytest.mark.parametrize("pair", ["pair1", "pair2"])
def test_colliding_bodies(pair):
    """Bodies that share an XXH3 hash of their own don't share an address, for that hashes the proof."""
    if not COLLISIONS.is_dir():
        pytest.skip("the shared XXH3 collisions are not here")
    bodies = [(COLLISIONS / f"{pair}_{side}.bin").read_bytes() for side in "ab"]

    assert bodies[0] != bodies[1]
    assert xxhash.xxh3_128_digest(bodies[0]) == xxhash.xxh3_128_digest(bodies[1])

    keys = [key_of(reading=Reading(b"raw", body, Facts())) for body in bodies]

    assert keys[0].proof != keys[1].proof
    assert keys[0].address != keys[1].address


def test_colliding_addresses(monkeypatch):
    """Keys whose addresses collide are still two keys."""
    monkeypatch.setattr(module, "address", lambda _: bytes(16))
    one, other = key_of(), key_of(model="other")

    assert one.address == other.address
    assert one != other


def test_address():
    """An address has 16 bytes."""

    assert address(b"proof") == xxhash.xxh3_128_digest(b"proof")
    assert len(address(b"")) == 16


def test_partition():
    """A partition depends on each part, their order, their borders and the secret."""
    made = [
        partition_of(SECRET, b"a", b"b"),
        partition_of(SECRET, b"b", b"a"),
        partition_of(SECRET, b"ab"),
        partition_of(SECRET, b"a", b"b", b""),
        partition_of(SECRET),
        partition_of(b"t" * 32, b"a", b"b"),
    ]

    assert len(set(made)) == len(made)
    assert {16} == {len(partition) for partition in made}
    assert made[0] == partition_of(SECRET, b"a", b"b")


def test_partition_is_no_proof():
    """A digest made for one purpose is none for another, though secret and bytes be the same."""
    before = b""
    material = b"model 1:m;t 1:b;"

    assert seal(SECRET, before, "m", Reading(b"t", b"b", Facts())).proof[:16] != partition_of(SECRET, material)


# Golden keys: a promise to every cache that is already filled.

CASES = sorted((HERE / "golden").glob("*.txt"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_golden(path):
    """
    A request still has the canonical form and the key that it had when its case was written.

    Where that is meant to change, KEY_VERSION changes, and ``regenerate_golden.py`` writes the cases anew.
    """
    case = golden.load(path)

    assert case.version == f"key version {KEY_VERSION}"
    assert case == golden.made(case.request)


def test_golden_cases_differ():
    """No two of the golden cases share a key, but those whose names say so (``same-…``)."""
    by_key = {}
    for path in CASES:
        case = golden.load(path)
        if case.key != "bypass" and not path.stem.startswith("same-"):
            by_key.setdefault(case.key, []).append(path.stem)

    assert len(CASES) >= 20
    assert [] == [names for names in by_key.values() if len(names) > 1]


def test_golden_pairs():
    """A ``same-…`` case has the key of the case that it is named after."""
    pairs = [path for path in CASES if path.stem.startswith("same-")]

    assert pairs
    for path in pairs:
        original = path.with_name(path.name.removeprefix("same-"))
        assert golden.load(original).key == golden.load(path).key


def test_no_new_key_under_an_old_version(monkeypatch, tmp_path):
    """The cases are not written anew while the version stays."""
    old = CASES[0].read_text("utf-8")
    changed = tmp_path / "case.txt"
    changed.write_text(old.replace(golden.load(CASES[0]).key[:8], "00000000"), "utf-8")
    monkeypatch.setattr(golden, "FOLDER", tmp_path)
    with pytest.raises(SystemExit, match="KEY_VERSION"):
        golden.main()

    monkeypatch.setattr(golden, "KEY_VERSION", KEY_VERSION + 1)
    golden.main()

    assert f"key version {KEY_VERSION + 1}" == golden.load(changed).version
