"""
The webhook's own certificate: it lies in a Secret that all replicas share, and is replaced before it ends.

The rule: no call of the API server fails because a certificate changes. Every look has one order: the Secret is read,
the API server is told all authorities in it, then the Secret may change, then this replica serves what it says. Two
replicas cannot both change it: a write names the version that it read.
"""

from __future__ import annotations

import base64
import ssl
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from msgspec import Struct

from sidecar.inject.api_server import NOT_FOUND, ApiServer, ApiServerError, ObjectMetadata
from sidecar.inject.certificates import CertificateSecret, Issued, expiry, renew, secret_data, stored_in

KINDS = ("mutatingwebhookconfigurations", "validatingwebhookconfigurations")

SETTLE_SECONDS = 20.0
"""How long API servers may take to learn a new authority; several of them watch, each at its own pace."""

_REGISTRATION = "/apis/admissionregistration.k8s.io/v1"


class _Secret(Struct, frozen=True):
    metadata: ObjectMetadata
    type: str = "kubernetes.io/tls"
    data: Mapping[str, str] | None = None


class _ClientConfig(Struct, frozen=True, rename={"bundle": "caBundle"}):
    bundle: str = ""


class _Registered(Struct, frozen=True, rename={"client": "clientConfig"}):
    client: _ClientConfig = _ClientConfig()


class _Registration(Struct, frozen=True):
    metadata: ObjectMetadata
    webhooks: Sequence[_Registered] | None = None


class OwnCertificate:
    """
    The certificate for the host *names*, in the Secret ``NAME-tls``, trusted by both webhook configurations *name*.
    *context* is what the server listens with; new connections get the newest certificate.
    """

    def __init__(
        self,
        api: ApiServer,
        name: str,
        names: Sequence[str],
        *,
        life: timedelta,
        now: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self._api = api
        self._name = name
        self._names = names
        self._life = life
        self._now = now
        self._clock = clock
        self._settle = min(SETTLE_SECONDS, life.total_seconds() / 5)
        self._trusted_since: tuple[bytes, float] = (b"", 0.0)
        self._held: CertificateSecret | None = None
        self._served: Issued | None = None
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2

    def __repr__(self) -> str:
        return f"<OwnCertificate {self._name}>"

    @property
    def is_served(self) -> bool:
        """Whether there is one yet."""
        return self._served is not None

    @property
    def expiry(self) -> float:
        """When the certificate that is served ends, in seconds of the epoch; 0 without one."""
        return 0.0 if self._served is None else expiry(self._served.certificate).timestamp()

    async def look(self) -> bool:
        """Look once; whether another certificate is served from now on. Raises ``ApiServerError``."""
        now = datetime.fromtimestamp(self._now(), UTC)
        secret = await self._read()
        stored = self._held if secret is None else stored_in(secret.data or {})
        if stored is not None:
            await self._tell(stored.authorities(now))
        wanted = renew(stored, self._names, now, self._life, trusted=self._is_settled(stored))
        if secret is None or wanted != stored:
            await self._write(secret, wanted)
            await self._tell(wanted.authorities(now))
            self._is_settled(wanted)  # from now on it is known
        self._held = wanted
        if wanted.current == self._served:
            return False
        load(self.context, wanted.current)
        self._served = wanted.current
        return True

    def _is_settled(self, stored: CertificateSecret | None) -> bool:
        """Whether API servers have known the following authority long enough. Called after they were told of it."""
        following = b"" if stored is None or stored.following is None else stored.following.authority
        authority, since = self._trusted_since
        if authority != following:
            self._trusted_since = following, self._clock()
            return False
        return bool(following) and self._clock() - since >= self._settle

    async def _read(self) -> _Secret | None:
        try:
            return await self._api.get(f"{self._secrets}/{self._name}-tls", _Secret)
        except ApiServerError as error:
            if error.status == NOT_FOUND:
                return None
            raise

    async def _write(self, secret: _Secret | None, stored: CertificateSecret) -> None:
        """Write *stored*, unless somebody else has written meanwhile: then the next look sees what."""
        version = {} if secret is None else {"resourceVersion": secret.metadata.version}
        item: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": f"{self._name}-tls", "namespace": self._api.namespace, **version},
            "type": "kubernetes.io/tls" if secret is None else secret.type,
            "data": secret_data(stored),
        }
        if secret is None:
            await self._api.create(self._secrets, item)
        else:
            item["metadata"] |= {"labels": secret.metadata.labels, "annotations": secret.metadata.annotations}
            await self._api.replace(f"{self._secrets}/{self._name}-tls", item)

    async def _tell(self, authorities: bytes) -> None:
        """Have both webhook configurations trust *authorities*. One that is not there needs none."""
        text = base64.b64encode(authorities).decode()
        for kind in KINDS:
            path = f"{_REGISTRATION}/{kind}/{self._name}"
            try:
                found = await self._api.get(path, _Registration)
            except ApiServerError as error:
                if error.status == NOT_FOUND:
                    continue
                raise
            changes = [
                {"op": "add", "path": f"/webhooks/{at}/clientConfig/caBundle", "value": text}
                for at, each in enumerate(found.webhooks or ())
                if each.client.bundle != text
            ]
            if changes:
                # where somebody has changed it since, this is a conflict; a `test` that fails were an error like others
                only = {"op": "replace", "path": "/metadata/resourceVersion", "value": found.metadata.version}
                await self._api.patch(path, [only, *changes])

    @property
    def _secrets(self) -> str:
        return f"/api/v1/namespaces/{self._api.namespace}/secrets"


def load(context: ssl.SSLContext, issued: Issued) -> None:
    """Serve *issued* on new connections of *context*. Raises ``ssl.SSLError``."""
    with tempfile.TemporaryDirectory() as folder:  # the ssl module reads files only; the folder is for this user alone
        certificate, key = Path(folder) / "tls.crt", Path(folder) / "tls.key"
        certificate.write_bytes(issued.certificate)
        key.write_bytes(issued.key)
        context.load_cert_chain(certificate, key)
