"""
The small client that asks for tokens.

The rule: nothing is kept between two requests, which are an hour apart. An answer is read up to 64 KiB, and no redirect
is followed. Every failure is an ``OSError`` whose text says what happened and shows nothing of the request.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from sidecar.core.rules import KIB
from sidecar.identity.azure import HeaderFields
from sidecar.net.bounded import TooLongError, read_whole

NEAR_CONNECT_SECONDS = 2.0
"""For an endpoint on this machine: if none listens, packets get no answer."""

FAR_CONNECT_SECONDS = 5.0

LONGEST_ANSWER = 64 * KIB


class TokenClient:
    """
    The real ``TokenFetch``. *proxy_for* gives the proxy's URL without credentials and its ``Proxy-Authorization``, for
    a URL, each ``""`` for none; *trust* the trust anchors, asked for once and only when they are needed; *resolver*
    looks up names.
    """

    def __init__(
        self,
        *,
        proxy_for: Callable[[str], tuple[str, str]],
        trust: Callable[[], ssl.SSLContext],
        resolver: AbstractResolver,
    ) -> None:
        self._proxy_for = proxy_for
        self._resolver = resolver
        self._trust = trust
        self._context: ssl.SSLContext | None = None

    async def __call__(
        self, method: str, url: str, headers: HeaderFields, body: bytes, *, seconds: float, proxy: bool
    ) -> tuple[int, HeaderFields, bytes]:
        """Ask the endpoint once; an answer of more than ``LONGEST_ANSWER`` bytes is an error."""
        if self._context is None and (proxy or url.startswith("https:")):
            self._context = self._trust()
        through, authorization = self._proxy_for(url) if proxy else ("", "")
        connect = FAR_CONNECT_SECONDS if proxy else NEAR_CONNECT_SECONDS
        try:
            async with (
                aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(
                        ssl=self._context or True, force_close=True, resolver=self._resolver, use_dns_cache=False
                    ),
                    cookie_jar=aiohttp.DummyCookieJar(),
                    timeout=aiohttp.ClientTimeout(total=seconds, sock_connect=connect),
                    auto_decompress=False,
                    trust_env=False,
                ) as session,
                session.request(
                    method,
                    URL(url, encoded=True),
                    headers={"Accept": "application/json", "Accept-Encoding": "identity", **headers},
                    data=body or None,
                    allow_redirects=False,
                    proxy=through or None,
                    proxy_headers={"Proxy-Authorization": authorization} if authorization else None,
                ) as response,
            ):
                return response.status, response.headers, await read_whole(response.content, LONGEST_ANSWER)
        except TimeoutError:
            raise TimeoutError("no answer in time") from None
        except (aiohttp.ClientError, ValueError) as error:
            raise ConnectionError(_error_text(error)) from None
        except OSError as error:
            raise ConnectionError(error.strerror or type(error).__name__) from None


def _error_text(error: Exception) -> str:
    """The meaning of *error*; the text of a foreign one may quote what was sent or answered."""
    match error:
        case TooLongError():
            return "the answer is longer than 64 KiB"
        case aiohttp.ClientConnectorDNSError():
            return "the name is not found"
        case aiohttp.ClientConnectorCertificateError():
            return "the certificate is refused"
        case aiohttp.ClientSSLError():
            return "TLS failed"
        case aiohttp.ClientHttpProxyError():
            return f"the proxy answered {error.status}"
        case aiohttp.ClientOSError():
            return os.strerror(error.errno) if error.errno else "the connection broke"
        case _:
            return f"no answer that can be read ({type(error).__name__})"
