"""
Certificates that the webhook makes for itself: a certificate authority for one certificate, and the certificate.

The rule: the authority's key is thrown away as soon as it has signed, so nobody can sign with it later. *now* is an
argument; a new pair replaces an old one well before its end, and the API server trusts both meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from msgspec import Struct

LIFE = timedelta(days=90)
RENEWAL = timedelta(days=30)
"""A certificate that ends within this time is replaced."""

SKEW = timedelta(minutes=10)
"""By so much a certificate is valid before it was made: clocks of nodes differ."""


class Issued(Struct, frozen=True):
    """A certificate, its key, and the authority that signed it, each in PEM."""

    authority: bytes
    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        return "<Issued>"


def issue(names: Sequence[str], now: datetime) -> Issued:
    """A certificate for the host *names*, the first of which is its subject, valid from *now* for ``LIFE``."""
    signer = ec.generate_private_key(ec.SECP256R1())
    # each authority has a name of its own: of two with one name, readers try the first and give up
    name = f"ai-sidecar-webhook-ca {x509.random_serial_number():040x}"[:64]
    authority = (
        _begun(name, name, signer, now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .sign(signer, hashes.SHA256())
    )
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _begun(names[0][:64], name, key, now)
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
    return found.not_valid_after_utc - now < RENEWAL or not set(names) <= set(hosts)


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


def _begun(subject: str, issuer: str, key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + LIFE)
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
