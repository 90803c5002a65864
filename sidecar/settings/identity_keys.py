"""
The keys that name an identity of Azure's, as data: for the credential of a region, and for that of Redis.

The rule: as in ``schema``, of which this is a part.
"""

from __future__ import annotations

from collections.abc import Mapping

from sidecar.settings import forms
from sidecar.settings.shapes import Setting, Table, in_file

KEYS = ("api_key", "apikey", "key", "password", "secret", "token", "value")
AZURE_KEYS = ("certificate", "client_certificate", "client_secret")
"""Keys under which people write secrets."""

_REMEDY = "remove it: an identity of Azure needs none"


def identities(scope: str, more: Mapping[str, Setting]) -> dict[str, Setting]:
    """The two kinds of identity, with tokens for *scope* unless the configuration says another, and *more* keys."""
    named = {
        "client_id": Setting(
            forms.ID, "the client id of the identity, where there are several", "`AZURE_CLIENT_ID`, if that is set"
        )
    }
    others = {"scope": Setting(forms.SCOPE, "what the token is for", f"`{scope}`"), **more}
    exchanged = {
        "tenant_id": Setting(forms.ID, "the tenant's id or domain", "`AZURE_TENANT_ID`"),
        "token_file": Setting(
            forms.FILE,
            "the mounted file that holds the service account's token; read again at each exchange",
            "`AZURE_FEDERATED_TOKEN_FILE`",
        ),
    }
    refused = dict.fromkeys((*KEYS, *AZURE_KEYS), _REMEDY)
    assertions = dict.fromkeys(("assertion", "client_assertion", "token"), in_file("token_file"))
    return {
        "managed_identity": Setting(
            Table({**named, **others}, secret=refused),
            "tokens of the identity that Azure gave the machine; an empty table is enough",
        ),
        "workload_identity": Setting(
            Table({**named, **exchanged, **others}, secret={**refused, **assertions}),
            "tokens of Azure for the pod's service account; an empty table is enough where the pod is labelled for it",
        ),
    }
