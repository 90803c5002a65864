"""What callers say of themselves, none of it a real secret."""

from __future__ import annotations

import base64
import json

NOW = 1_800_000_000.0


def segment(claims):
    text = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=")


def jwt(claims=None, *, signature=b"c2ln", header=b'{"alg":"RS256"}', **more):
    """A token; without *claims* one for ``app`` of ``t1``, with *more* changed."""
    claims = {"iss": "https://issuer", "tid": "t1", "sub": "app", "exp": NOW + 600} | more if claims is None else claims
    return b".".join((segment(header), segment(claims), signature))


SECRETIVE = [
    "authorization", "api-key", "x-api-key", "x-goog-api-key", "ocp-apim-subscription-key", "x-litellm-api-key",
    "x-litellm-key", "x-portkey-api-key", "x-portkey-virtual-key", "x-bf-vk", "helicone-auth", "cf-aig-authorization",
    "x-forwarded-authorization", "x-original-authorization", "proxy-authorization", "x-serverless-authorization",
    "x-functions-key", "x-auth-token", "x-access-token", "x-forwarded-access-token", "x-id-token", "x-vault-token",
    "private-token", "x-amz-security-token", "x-session-token", "x-user-token", "x-authtoken", "x-accesstoken",
    "x-secret", "x-client-secret", "x-password", "x-passphrase", "x-credential", "x-apikey", "apikey", "x-master-key",
    "x-team-key", "x-secretkey", "x-jwt", "x-goog-iap-jwt-assertion", "cf-access-jwt-assertion", "x-amzn-oidc-data",
    "x-amzn-oidc-accesstoken", "x-ms-client-principal", "x-ms-token-aad-access-token", "x-auth-request-user", "cookie2",
]  # fmt: skip
"""Names that real gateways, proxies and platforms give to what proves or names a caller."""
