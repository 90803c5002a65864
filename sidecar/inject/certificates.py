"""
Certificates that the webhook makes for itself: a certificate authority for one certificate, and the certificate.

The rule: an authority is trusted before its certificate is served. So a new pair waits in the Secret as the *following*
one until API servers know its authority, and the old authority stays trusted until it ends. The authority's key is
thrown away as soon as it has signed, so nobody can sign with it later. *now* is an argument.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from msgspec import Struct

LIFE = timedelta(days=90)
RENEWAL = LIFE / 3
"""A certificate that ends within a third of its life is replaced."""

SKEW = timedelta(minutes=10)
"""By so much a certificate is valid before it was made: clocks of nodes differ."""


class Issued(Struct, frozen=True):
    """A certificate, its key, and the authority that signed it, each in PEM."""

    authority: bytes
    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        return "<Issued>"


class CertificateSecret(Struct, frozen=True):
    """
    What the Secret holds: the *current* pair, which is served; the *following* one, if it was made already; and the
    *former* authorities, in PEM.
    """

    current: Issued
    following: Issued | None = None
    former: bytes = b""

    def authorities(self, now: datetime) -> bytes:
        """All authorities that are to be trusted, in PEM."""
        following = (self.following.authority,) if self.following is not None else ()
        return bundle((self.current.authority, *following, self.former), now)


def renew(
    stored: CertificateSecret | None, names: Sequence[str], now: datetime, life: timedelta, *, trusted: bool
) -> CertificateSecret:
    """
    What the Secret must hold from *now* on, for a certificate of the host *names*; *stored* itself where nothing is to
    change. *trusted*: API servers know the authority of the following pair.
    """
    if stored is None:
        return CertificateSecret(issue(names, now, life))
    following = stored.following
    if not _serves(stored.current, names, now):
        following = following if following is not None and _serves(following, names, now) else issue(names, now, life)
        return _promoted(stored, following, now)
    if following is None:
        if not is_due(stored.current.certificate, names, now):
            return stored
        return CertificateSecret(stored.current, issue(names, now, life), stored.former)
    if not _serves(following, names, now) or is_due(following.certificate, names, now):
        return CertificateSecret(stored.current, issue(names, now, life), stored.former)
    return _promoted(stored, following, now) if trusted else stored


def secret_data(stored: CertificateSecret) -> dict[str, str]:
    """*stored* as the ``data`` of a Secret of type ``kubernetes.io/tls``."""
    texts = {"tls.crt": stored.current.certificate, "tls.key": stored.current.key, "ca.crt": stored.current.authority}
    if stored.following is not None:
        texts |= {
            "next-tls.crt": stored.following.certificate,
            "next-tls.key": stored.following.key,
            "next-ca.crt": stored.following.authority,
        }
    if stored.former:
        texts["former-ca.crt"] = stored.former
    return {name: base64.b64encode(text).decode() for name, text in texts.items()}


def stored_in(data: Mapping[str, str]) -> CertificateSecret | None:
    """What the ``data`` of a Secret holds; None if it is no pair with its authority."""
    texts: dict[str, bytes] = {}
    for name, value in data.items():
        try:
            texts[name] = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            continue
    current, following = (
        Issued(texts[f"{which}ca.crt"], texts[f"{which}tls.crt"], texts[f"{which}tls.key"])
        if {f"{which}ca.crt", f"{which}tls.crt", f"{which}tls.key"} <= texts.keys() else None
        for which in ("", "next-")
    )  # fmt: skip
    return None if current is None else CertificateSecret(current, following, texts.get("former-ca.crt", b""))


def issue(names: Sequence[str], now: datetime, life: timedelta = LIFE) -> Issued:
    """A certificate for the host *names*, the first of which is its subject, valid from *now* for *life*."""
    signer = ec.generate_private_key(ec.SECP256R1())
    # each authority has a name of its own: of two with one name, readers try the first and give up
    name = f"ai-sidecar-webhook-ca {x509.random_serial_number():040x}"[:64]
    authority = (
        _begun(name, name, signer, now, life)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .sign(signer, hashes.SHA256())
    )
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _begun(names[0][:64], name, key, now, life)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(signer, hashes.SHA256())
    )
    return Issued(
        authority.public_bytes(serialization.Encoding.PEM),
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


def is_due(certificate: bytes, names: Sequence[str], now: datetime) -> bool:
    """Whether *certificate*, in PEM, must be replaced: it ends soon, is for other *names*, or cannot be read."""
    try:
        found = x509.load_pem_x509_certificate(certificate)
        said = found.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (ValueError, x509.ExtensionNotFound):
        return True
    hosts = said.value.get_values_for_type(x509.DNSName)
    life = found.not_valid_after_utc - found.not_valid_before_utc - SKEW
    return found.not_valid_after_utc - now < life / 3 or not set(names) <= set(hosts)


def expiry(certificate: bytes) -> datetime:
    """When *certificate*, in PEM, ends. Raises ``ValueError`` if it is none."""
    return x509.load_pem_x509_certificate(certificate).not_valid_after_utc


def bundle(authorities: Sequence[bytes], now: datetime) -> bytes:
    """The *authorities* that are still valid, each once, in their order; what cannot be read is left out."""
    kept: list[bytes] = []
    for authority in authorities:
        try:
            found = x509.load_pem_x509_certificates(authority)
        except ValueError:
            continue
        for one in found:
            text = one.public_bytes(serialization.Encoding.PEM)
            if one.not_valid_after_utc > now and text not in kept:
                kept.append(text)
    return b"".join(kept)


def _promoted(stored: CertificateSecret, following: Issued, now: datetime) -> CertificateSecret:
    return CertificateSecret(following, None, bundle((stored.current.authority, stored.former), now))


def _serves(issued: Issued, names: Sequence[str], now: datetime) -> bool:
    """Whether a server with this pair is believed by who trusts its authority."""
    try:
        certificate = x509.load_pem_x509_certificate(issued.certificate)
        authority = x509.load_pem_x509_certificate(issued.authority)
        key = serialization.load_pem_private_key(issued.key, None)
        said = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, x509.ExtensionNotFound, InvalidSignature, UnsupportedAlgorithm):
        return False
    hosts = said.value.get_values_for_type(x509.DNSName)
    return (
        certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc
        and certificate.public_key() == key.public_key()
        and set(names) <= set(hosts)
    )


def _begun(
    subject: str, issuer: str, key: ec.EllipticCurvePrivateKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + life)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )
