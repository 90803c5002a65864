"""What is left of a configuration that was refused: plain forwarding, where the pod expects it."""

from __future__ import annotations

import pytest

from sidecar.core.rules import Mode
from sidecar.errors import ConfigError
from sidecar.settings import forwarding, load
from sidecar.settings.builtin import SERVICES

SAID = {"SIDECAR_HEALTH_HOST": "0.0.0.0", "SIDECAR_HEALTH_PORT": "7599", "SIDECAR_ADMIN_PORT": "7598"}


def rules(environ, **options):
    return forwarding(environ=environ, overrides={name.replace("_", "."): value for name, value in options.items()})


def where(rules):
    """What the pod's probes and applications know of it."""
    return rules.listen.port, rules.health.host, rules.health.port, rules.admin.port


def test_nothing_said():
    """The built-in services, nothing of a cache, and a word about it."""
    plain = rules({})

    assert (Mode.PASSTHROUGH, tuple(SERVICES.values())) == (plain.mode, plain.services)
    assert ("the configuration cannot be used: calls are only forwarded, to the built-in services",) == plain.warnings


def test_what_reads_well_is_kept():
    """Variables and options say where it is found, whatever mode they ask for."""
    assert (7500, "0.0.0.0", 7599, 7598) == where(rules({**SAID, "SIDECAR_MODE": "normal"}, listen_port=7500))


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"SIDECAR_MODE": "fast"}, ["environment SIDECAR_MODE: mode: "]),
        (
            {"SIDECAR_LISTEN_PORT": "many", "SIDECAR_LIMITS_DRAIN": "soon"},
            ["environment SIDECAR_LIMITS_DRAIN: limits.drain: ", "environment SIDECAR_LISTEN_PORT: listen.port: "],
        ),
        (
            {"SIDECAR_UPSTREAM_CA_FILE": "/dev/null/none"},
            ["environment SIDECAR_UPSTREAM_CA_FILE: upstream.ca_file: /dev/null/none cannot be used: "],
        ),
        ({"SIDECAR_LISTEN_PORT": "7599"}, ["environment SIDECAR_HEALTH_PORT: health.port: 7599 is also the port of "]),
        ({"SIDECAR_ADMIN_HOST": "0.0.0.0"}, ["environment SIDECAR_ADMIN_HOST: admin.host: lets whoever reaches "]),
        ({"SIDECAR_CACHE_REDIS_PASSWORD_FILE": "/p"}, ["built-in settings: cache.redis: has no url; "]),
        (
            {
                "SIDECAR_CACHE_REDIS_URL": "redis+none://cache",
                "SIDECAR_CACHE_REDIS_TIMEOUT": "1s",
                "SIDECAR_LIMITS_HEAD": "x",
            },
            [
                "environment SIDECAR_CACHE_REDIS_URL: cache.redis.url: ",
                "environment SIDECAR_LIMITS_HEAD: limits.head: ",
                "built-in settings: cache.redis: has no url; ",
            ],
        ),
    ],
    ids=["mode", "two", "anchors", "port", "exposed", "half of a table", "one after the other"],
)
def test_only_what_is_wrong_is_left_out(environ, expected):
    """One bad variable says nothing against the others; each that is not used is told."""
    plain = rules({**SAID, **environ})
    told = plain.warnings[1:]
    port_kept = "SIDECAR_HEALTH_PORT" not in expected[0]

    assert expected == [line[: len(start)] for line, start in zip(told, expected, strict=True)]
    assert all(line.endswith(" (not used)") for line in told)
    assert ("0.0.0.0", 7598) == (plain.health.host, plain.admin.port)
    assert (7599 if port_kept else 7491) == plain.health.port
    assert (Mode.PASSTHROUGH, "127.0.0.1", "", None) == (
        plain.mode,
        plain.admin.host,
        plain.upstream.ca_file,
        plain.redis,
    )


def test_what_fits_together_stays_together():
    """Ports that are exchanged, or an address with what guards it, are right only as a whole."""
    environ = {
        "SIDECAR_LISTEN_PORT": "7491",
        "SIDECAR_HEALTH_PORT": "7400",
        "SIDECAR_ADMIN_HOST": "0.0.0.0",
        "SIDECAR_ADMIN_TOKEN_FILE": "/token",
        "SIDECAR_MODE": "fast",
    }
    plain = rules(environ)

    assert (7491, 7400, "0.0.0.0") == (plain.listen.port, plain.health.port, plain.admin.host)
    assert "/token" == plain.admin_token_file


def test_a_variable_nobody_knows_is_told():
    """A misspelt name may be why nobody finds the port."""
    assert "environment SIDECAR_HELTH_PORT: unknown variable" in rules({"SIDECAR_HELTH_PORT": "7599"}).warnings[1]


def test_a_wrong_option_stays_wrong():
    """Who types it is there to correct it."""
    with pytest.raises(ConfigError) as caught:
        rules(SAID, listen_port=70000)

    assert ["option: listen.port"] == [line[: len("option: listen.port")] for line in caught.value.problems]


def test_it_is_what_the_built_in_settings_are(monkeypatch, tmp_path):
    """No file is read, also not the one that would be found."""
    monkeypatch.setattr("sidecar.settings.DEFAULT_FOLDER", str(tmp_path))
    (tmp_path / "a.yaml").write_text("version: 1\nlisten: {port: 7555}\n")

    assert (7555, 7400) == (
        load(None, environ={}, overrides={}, strict=False).listen.port,
        rules({}).listen.port,
    )
