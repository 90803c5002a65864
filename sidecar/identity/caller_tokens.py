"""
Public keys of token issuers, and the verification of tokens with them.

The rule: a token is verified by its signature, issuer and audience, with asymmetric algorithms only; its expiry is
checked at each use. A token that cannot be verified is no error: it only counts as unverified.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from msgspec import json

from sidecar.core.key.json_rule import UNREADABLE
from sidecar.core.request import token
from sidecar.core.rules import KIB, TokenRule
from sidecar.identity.rotated import RotatedFile

if TYPE_CHECKING:
    from jwt import PyJWK

LONGEST = 256 * KIB
"""The largest key set file, in bytes."""

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures that only the holder of a private key can make (RFC 7518, 3.1; RFC 8037)."""

Keys = tuple["PyJWK", ...]
KeyFile = RotatedFile[Keys]


class KeySets:
    """
    Verifies the tokens of services by their *rules*. *clock* is monotonic seconds; *report* gets the path and the
    reason of a file that cannot be used, and again only when the reason changes. *known* are files that are followed
    already, by their paths.
    """

    def __init__(
        self,
        rules: Mapping[str, TokenRule],
        clock: Callable[[], float],
        report: Callable[[str], None],
        known: Mapping[str, KeyFile] | None = None,
    ) -> None:
        self._clock = clock
        self._report = report
        self._rules = {name: rule for name, rule in rules.items() if rule.issuer}
        self._files = {
            name: (known or {}).get(rule.jwks_file)
            or RotatedFile(rule.jwks_file, parse, longest=LONGEST, clock=clock, report=report)
            for name, rule in self._rules.items()
        }
        self._used = {name: file.read_again() for name, file in self._files.items()}

    def __repr__(self) -> str:
        return f"<KeySets of {len(self._files)} services>"

    def revised(self, rules: Mapping[str, TokenRule]) -> KeySets:
        """
        The same for other *rules*, with the files as they are now. Of a file that has become unfit, the last good keys
        go on counting.
        """
        return KeySets(rules, self._clock, self._report, {file.path: file for file in self._files.values()})

    def changed(self) -> bool:
        """Whether the keys have changed since the last call: then earlier verifications no longer count."""
        keys = {name: file.value() for name, file in self._files.items()}
        changed = any(keys[name] is not self._used[name] for name in keys)
        self._used = keys
        return changed

    def verify(self, service: str, value: bytes) -> token.Claims | None:
        """The claims of a token sent to *service*, if its issuer signed it for that service; otherwise None."""
        rule = self._rules.get(service)
        if rule is None or value.count(b".") != 2 or len(value) > token.LONGEST:
            return None
        keys = self._used[service]
        claims = token.read_claims(value)  # by our own reader: a token that says a claim twice names nobody
        if not keys or claims is None or claims.get("iss") != rule.issuer:
            return None
        return claims if _is_signed(value, keys, rule) else None


def parse(text: bytes) -> Keys | str:
    """The keys in a JSON Web Key Set (RFC 7517) whose first ``LONGEST`` + 1 bytes are *text*, or why there are none."""
    from jwt import PyJWK, PyJWTError  # noqa: PLC0415  only who verifies tokens has to load it

    if len(text) > LONGEST:
        return "is larger than 256 KiB"
    try:
        document = json.decode(text)
    except UNREADABLE:
        return "is not JSON"
    found = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(found, list):
        return "is no JSON Web Key Set: it has no list `keys`"
    keys = []
    for one in found:
        if not isinstance(one, dict) or one.get("use", "sig") != "sig" or one.get("kty") == "oct":
            continue
        try:
            key = PyJWK.from_dict(one)
        except (PyJWTError, ValueError, TypeError, KeyError):
            continue  # of a kind that this version doesn't know
        if key.algorithm_name in ALGORITHMS:
            keys.append(key)
    return tuple(keys) or "holds no public key that signatures can be verified with"


def _is_signed(value: bytes, keys: Keys, rule: TokenRule) -> bool:
    import jwt  # noqa: PLC0415  as above

    try:
        header: dict[str, Any] = jwt.get_unverified_header(value)
    except jwt.PyJWTError:
        return False
    name = header.get("kid")
    for key in keys:
        if name is not None and key.key_id is not None and key.key_id != name:
            continue
        try:
            jwt.decode(
                value,
                key,
                algorithms=[key.algorithm_name],
                audience=rule.audience,
                issuer=rule.issuer,
                options={
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                    "require": ["aud", "iss", "sub"],
                },
            )
        except (jwt.PyJWTError, ValueError, TypeError):
            continue
        return True
    return False
