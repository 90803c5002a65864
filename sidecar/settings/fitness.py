"""
Whether a mounted file has the content that it should have.

The rule: the content is judged by the code that uses it later, and never shown.
"""

from __future__ import annotations

import ssl
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from sidecar.admin.access import token_of
from sidecar.core.answer import answer_file as written
from sidecar.core.key import keyring
from sidecar.identity import caller_tokens, files

_LARGEST = written.LARGEST + 1


class FilePurpose(NamedTuple):
    """
    What a file is for. *judge* returns what is wrong with it, ``""`` for nothing, and raises ``OSError`` if the file
    cannot be read; *remedy* goes with every fault that does not name its own.
    """

    judge: Callable[[Path], str]
    remedy: str

    def fault(self, name: str) -> str:
        """
        What is wrong with the file *name*, and what to do about it; ``""`` for nothing.

        Raises ``OSError`` if it is missing or cannot be read, and ``ValueError`` if *name* is not a path.
        """
        file = Path(name)
        mode = file.stat().st_mode
        fault = "is a folder" if stat.S_ISDIR(mode) else "is not a plain file"
        if stat.S_ISREG(mode):  # reading any other might never end
            fault = self.judge(file)
        return f"{fault}; {self.remedy}" if fault and "; " not in fault else fault


def _read(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(_LARGEST)


def _token(file: Path) -> str:
    data = _read(file)
    try:
        token_of(data)
    except ValueError as error:
        return str(error)
    return ""


def _secret(file: Path) -> str:
    found = keyring.parse(_read(file))
    return found if isinstance(found, str) else ""


def _credential(file: Path) -> str:
    found = files.parse(_read(file))
    return found if isinstance(found, str) else ""


def _line(file: Path) -> str:
    try:
        lines = _read(file).decode().strip().splitlines()
    except UnicodeDecodeError:
        return "is not UTF-8"
    return "" if len(lines) == 1 else "is not one line" if lines else "is empty"


def _key_set(file: Path) -> str:
    found = caller_tokens.parse(_read(file))
    return found if isinstance(found, str) else ""


def _answer(file: Path) -> str:
    return written.fault(_read(file))


def _certificates(file: Path) -> str:
    _read(file)  # so that an unreadable file is told apart from one with wrong content
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except ssl.SSLError:
        return "holds no certificate"
    return ""


class _LockedError(Exception):
    """A private key is encrypted."""


def _nobody() -> str:
    raise _LockedError


def _key(certificate: Path, file: Path) -> str:
    """What is wrong with the private key in *file* for *certificate*; nothing if the certificate itself is unfit."""
    _read(file)
    if _certificates(certificate):
        return ""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, file, _nobody)
    except ssl.SSLError as error:
        return "is not the key of the certificate" if error.reason == "KEY_VALUES_MISMATCH" else "holds no private key"
    except _LockedError:
        return "needs a password"
    return ""


def _pair(file: Path) -> str:
    return _certificates(file) or _key(file, file)


def key_of(certificate: str) -> FilePurpose:
    """The private key of the *certificate* in another file; if that one is missing, the key cannot be judged."""
    return FilePurpose(
        partial(_key, Path(certificate)), "put the certificate's private key there, in PEM and without a password"
    )


TOKEN = FilePurpose(_token, "write one there")
SECRET = FilePurpose(_secret, "write it with `sidecar keygen > FILE`")
CREDENTIAL = FilePurpose(_credential, "write it there, on one line")
LINE = FilePurpose(_line, "write it there, on one line")
KEY_SET = FilePurpose(_key_set, "put the issuer's public keys there, as a JSON Web Key Set")
ANSWER = FilePurpose(_answer, written.REMEDY)
CERTIFICATES = FilePurpose(_certificates, "put certificates there, in PEM")
PAIR = FilePurpose(_pair, "put a certificate and its private key there, in PEM and without a password")
"""A certificate and its private key in one file."""
