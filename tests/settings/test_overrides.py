"""What options and environment variables set, and which variables are nobody's mistake."""

from __future__ import annotations

import pytest

from sidecar.errors import ConfigError
from sidecar.settings import load
from sidecar.settings.overrides import POD_VARIABLES, VARIABLES
from sidecar.settings.schema import scalars


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "sidecar.yaml"
    path.write_text("listen: {port: 7401}\nmode: cache-off\n")
    return str(path)


def test_option_beats_variable_beats_file(file):
    """The nearest to the person who starts the program wins."""
    environ = {"SIDECAR_LISTEN_PORT": "7402", "SIDECAR_HEALTH_PORT": "7403"}
    rules = load(file, environ=environ, overrides={"listen.port": 7404, "mode": None}, strict=True)

    assert (7404, 7403, "cache-off") == (rules.listen.port, rules.health.port, rules.mode)


@pytest.mark.parametrize(
    ("environ", "read", "expected"),
    [
        ({"SIDECAR_MODE": "passthrough"}, lambda r: r.mode, "passthrough"),
        ({"SIDECAR_HEALTH_HOST": "0.0.0.0"}, lambda r: r.health.host, "0.0.0.0"),
        ({"SIDECAR_STATE_DIR": "/data"}, lambda r: r.state_dir, "/data"),
        ({"SIDECAR_LIMITS_DRAIN": "5s"}, lambda r: r.limits.drain_seconds, 5.0),
        ({"SIDECAR_CACHE_MEMORY_MAX_BYTES": "1Mi"}, lambda r: r.memory.max_bytes, 1024**2),
        ({"SIDECAR_UPSTREAM_PROXY": "none"}, lambda r: r.upstream.proxy, "none"),
        ({"SIDECAR_MODE": ""}, lambda r: r.mode, "cache-off"),
    ],
    ids=lambda value: next(iter(value.items())).__str__() if isinstance(value, dict) else "",
)
def test_variables_set_keys(file, environ, read, expected):
    """A variable sets its key; an empty one sets nothing."""
    rules = load(file, environ=environ, overrides={}, strict=True)

    assert expected == read(rules)


@pytest.mark.parametrize(
    "environ",
    [
        {"SIDECAR_PORT": "tcp://10.0.0.1:7400"},
        {"SIDECAR_HEALTH_PORT": "tcp://10.0.0.1:7491"},
        {"SIDECAR_SERVICE_HOST": "10.0.0.1", "SIDECAR_SERVICE_PORT": "7400", "SIDECAR_SERVICE_PORT_HTTP": "7400"},
        {"SIDECAR_PORT_7400_TCP": "tcp://10.0.0.1:7400", "SIDECAR_PORT_7400_TCP_PROTO": "tcp"},
        {"SIDECAR_PORT_7400_TCP_PORT": "7400", "SIDECAR_PORT_7400_TCP_ADDR": "10.0.0.1"},
        {"SIDECAR_ADMIN_SERVICE_HOST": "10.0.0.1", "SIDECAR_ADMIN_PORT_7490_TCP_ADDR": "10.0.0.1"},
        {"SIDECAR_POD_NAMESPACE": "a", "SIDECAR_SERVICE_ACCOUNT": "b"},
        {"PATH": "/bin", "SIDECARS": "2"},
    ],
    ids=lambda environ: next(iter(environ)),
)
def test_variables_that_are_nobodys_mistake(file, environ):
    """What Kubernetes sets for services, and what others read, changes nothing and warns of nothing."""
    rules = load(file, environ=environ, overrides={}, strict=True)

    assert load(file, environ={}, overrides={}, strict=True) == rules


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("SIDECAR_LISTN_PORT", "did you mean SIDECAR_LISTEN_PORT?"),
        ("SIDECAR_MODES", "did you mean SIDECAR_MODE?"),
        ("SIDECAR_ZZZ", "remove it, or see docs/configuration.md for those known"),
    ],
)
def test_a_strange_variable_is_a_warning(file, name, expected):
    """An unknown variable is named, never its value."""
    rules = load(file, environ={name: "hunter2"}, overrides={}, strict=True)

    assert (f"environment {name}: unknown variable, not used; {expected}",) == rules.warnings


def test_bad_values_stand_after_the_files_problems(tmp_path):
    """Whatever sets it, a bad value is refused with the name of what set it."""
    path = tmp_path / "bad.yaml"
    path.write_text("\nlisten: {port: many}\n")

    with pytest.raises(ConfigError) as caught:
        load(str(path), environ={"SIDECAR_HEALTH_PORT": "x"}, overrides={"mode": "fast", "no.key": 1}, strict=False)

    lines = caught.value.problems
    assert f'{path}:2: listen.port: "many" is not a port; use 1 to 65535, or 0 for any free port' == lines[0]
    expected = 'environment SIDECAR_HEALTH_PORT: health.port: "x" is not a port; use 1 to 65535, or 0 for any free port'
    assert expected == lines[1]
    assert 'option: mode: "fast" is not a mode; use one of cache-off, normal, passthrough' == lines[2]
    assert lines[3].startswith("option: no.key: no option sets this key; those that can be set are admin.host, ")
    assert 4 == len(lines)


def test_each_scalar_key_has_one_variable():
    """No two keys share a variable, and none is taken by what others read."""
    keys = [path for path, _ in scalars() if path != ("version",)]

    assert len(keys) == len(VARIABLES)
    assert not POD_VARIABLES & VARIABLES.keys()


DEFAULT = "SIDECAR_DEFAULT_CACHE_MEMORY_MAX_BYTES"


@pytest.mark.parametrize(
    ("text", "environ", "expected"),
    [
        ("", {DEFAULT: "16Mi"}, 16),
        ("cache: {memory: {max_entry_bytes: 1Mi}}", {DEFAULT: "16Mi"}, 16),
        ("cache: {memory: {max_bytes: 64Mi}}", {DEFAULT: "16Mi"}, 64),
        ("cache: {memory: {max_bytes: 64Mi}}", {DEFAULT: "16Mi", "SIDECAR_CACHE_MEMORY_MAX_BYTES": "8Mi"}, 8),
        ("", {DEFAULT: "16Mi", "SIDECAR_CACHE_MEMORY_MAX_BYTES": "8Mi"}, 8),
        ("cache: {memory: {max_bytes: 64Mi}}", {DEFAULT: ""}, 64),
    ],
)
def test_a_default_loses_against_the_file(tmp_path, text, environ, expected):
    """Whoever starts the sidecar replaces what is built in, and nothing that somebody has said."""
    (tmp_path / "c.yaml").write_text(f"version: 1\n{text}\n")
    rules = load(str(tmp_path / "c.yaml"), environ=environ, overrides={}, strict=True)

    assert (expected * 1024**2, ()) == (rules.memory.max_bytes, rules.warnings)


def test_a_default_does_not_mend_the_file(tmp_path):
    """What is wrong in it stays wrong."""
    (tmp_path / "c.yaml").write_text("cache: {memory: {max_bytes: much}}\n")

    with pytest.raises(ConfigError, match=r"c\.yaml:1: cache\.memory\.max_bytes"):
        load(str(tmp_path / "c.yaml"), environ={DEFAULT: "16Mi"}, overrides={}, strict=True)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [({DEFAULT: "much"}, f"environment {DEFAULT}: cache.memory.max_bytes: "),
     ({"SIDECAR_DEFAULT_CACHE_MEMORY_MAX_BYTE": "1Mi"}, f"did you mean {DEFAULT}?")],
)  # fmt: skip
def test_a_wrong_default(environ, expected):
    """It is named like any other variable."""
    try:
        found = load(None, environ=environ, overrides={}, strict=True).warnings
    except ConfigError as error:
        found = tuple(error.problems)

    assert any(expected in line for line in found)


@pytest.mark.parametrize(
    ("text", "environ", "entry", "told"),
    [
        ("{max_entry_bytes: 32Mi}", {DEFAULT: "16Mi"}, 16, f"(environment {DEFAULT}); 16Mi is used"),
        ("{max_bytes: 64Mi, max_entry_bytes: 32Mi}", {DEFAULT: "16Mi"}, 32, ""),
        ("{max_bytes: 64Mi, max_entry_bytes: 32Mi}", {"SIDECAR_CACHE_MEMORY_MAX_BYTES": "16Mi"}, 16, "16Mi is used"),
        ("{max_bytes: 16Mi}", {"SIDECAR_CACHE_MEMORY_MAX_ENTRY_BYTES": "32Mi"}, 16, "(c.yaml:1); 16Mi is used"),
        ("{max_bytes: 2Mi}", {}, 2, ""),
    ],
)
def test_an_entry_larger_than_somebody_elses_tier(tmp_path, monkeypatch, text, environ, entry, told):
    """A pod's bound on its memory makes no ConfigMap unusable: the smaller size holds, and that is said."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(f"cache: {{memory: {text}}}\n")
    rules = load("c.yaml", environ=environ, overrides={}, strict=True)

    assert (entry * 1024**2, bool(told)) == (rules.memory.max_entry_bytes, bool(rules.warnings))
    assert told in "".join(rules.warnings)


def test_both_sizes_by_variables():
    """Then who sets them contradicts themselves, as within a file."""
    environ = {"SIDECAR_CACHE_MEMORY_MAX_BYTES": "1Mi", "SIDECAR_CACHE_MEMORY_MAX_ENTRY_BYTES": "2Mi"}

    with pytest.raises(ConfigError, match="is more than max_bytes"):
        load(None, environ=environ, overrides={}, strict=True)
