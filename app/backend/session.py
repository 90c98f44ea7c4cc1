"""The ``requests`` session that all upstream traffic goes through."""

from __future__ import annotations

import os
import socket
import ssl
from functools import lru_cache
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import DEFAULT_POOLBLOCK, HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH, get_environ_proxies
from urllib3.connection import HTTPConnection
from urllib3.util.ssl_ import create_urllib3_context

from app import __version__
from app.backend.connection import DIRECT_POOLS, SOCKS_POOLS

POOL_SIZE = 512
"""Idle connections kept per host; more can be open, those are closed after use."""
RECEIVE_BUFFER = 128 << 10
"""Bytes of an answer that the system reads ahead (twice that much, as Linux counts).

By itself it goes up to megabytes, which it would hold while a client is slow. On a connection with
100 ms this is more than a megabyte a second; no model writes that fast.
"""
HOSTS = 64
"""Hosts whose connections are kept: Vertex has one per region."""

_SOCKET_OPTIONS = (
    *HTTPConnection.default_socket_options,
    (socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER),
)


@lru_cache(maxsize=4)
def _tls_context(bundle: str) -> ssl.SSLContext:
    # Reading the certificates takes some 10 ms, which requests does for every connection.
    context = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED)
    if Path(bundle).is_dir():
        context.load_verify_locations(capath=bundle)
    else:
        context.load_verify_locations(cafile=bundle)
    return context


class _Adapter(HTTPAdapter):
    """Uses tracked connections and one TLS context."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._tls = tls
        super().__init__(pool_connections=HOSTS, pool_maxsize=POOL_SIZE)

    def init_poolmanager(
        self, connections: int, maxsize: int, block: bool = DEFAULT_POOLBLOCK, **pool_kwargs: Any
    ) -> None:
        super().init_poolmanager(
            connections,
            maxsize,
            block,
            ssl_context=self._tls,
            socket_options=_SOCKET_OPTIONS,
            **pool_kwargs,
        )
        self.poolmanager.pool_classes_by_scheme = DIRECT_POOLS

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Any:
        socks = proxy.lower().startswith("socks")
        if not socks:
            proxy_kwargs["proxy_ssl_context"] = self._tls
        manager = super().proxy_manager_for(
            proxy, ssl_context=self._tls, socket_options=_SOCKET_OPTIONS, **proxy_kwargs
        )
        manager.pool_classes_by_scheme = SOCKS_POOLS if socks else DIRECT_POOLS
        return manager

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        # The context has the certificates; naming a file here would load it per connection.
        conn.cert_reqs = "CERT_REQUIRED"


class UpstreamSession(requests.Session):
    """Thread-safe in the way it is used: nothing of it changes after the start.

    Follows no redirect (a credential never goes elsewhere), keeps no cookie, reads no ``.netrc``
    (which would replace the Authorization header). ``proxy`` is a proxy's URL; empty means what
    ``HTTPS_PROXY`` and its like say, asked once per host. ``REQUESTS_CA_BUNDLE`` is honoured.
    """

    def __init__(self, proxy: str = "") -> None:
        super().__init__()
        self.trust_env = False
        self._proxy = {"all": proxy} if proxy else None
        self._proxies_of: dict[str, dict[str, str]] = {}
        self.headers["User-Agent"] = f"claude-gemini-gateway/{__version__}"
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
        adapter = _Adapter(_tls_context(bundle or DEFAULT_CA_BUNDLE_PATH))
        self.mount("https://", adapter)
        self.mount("http://", adapter)

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send ``request`` through the right proxy, to its own URL and no other."""
        kwargs["proxies"] = self._proxy or self._environment_proxies(request.url or "")
        kwargs["allow_redirects"] = False
        return super().send(request, **kwargs)

    def get_redirect_target(self, resp: Any) -> None:
        """Return None: without this, requests reads a redirect's whole body."""
        return

    def _environment_proxies(self, url: str) -> dict[str, str]:
        parts = urlsplit(url)
        host = f"{parts.scheme}://{parts.netloc}"
        if host not in self._proxies_of:
            self._proxies_of[host] = get_environ_proxies(host)
        return self._proxies_of[host]
